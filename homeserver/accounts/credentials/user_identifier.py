"""`identifier` objects of `/login`: how a client names a user.

Spec: https://spec.matrix.org/v1.19/client-server-api/#identifier-types
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from homeserver.protocol.errors import BadJson, Forbidden
from homeserver.protocol.identifiers import InvalidIdentifier, parse_user_id
from homeserver.protocol.third_party_ids.addresses import (
    MSISDN,
    InvalidThirdPartyId,
    canonical_address,
)
from homeserver.protocol.third_party_ids.phone_numbers import parse_phone_number
from homeserver.storage.accounts.third_party_ids import find_third_party_id_owner
from homeserver.storage.database.database import Database

MAX_UNKNOWN_USER_LENGTH = 300  # characters


class UserIdentifier(msgspec.Struct, omit_defaults=True):
    """A Matrix ID, a third-party ID or a phone number; without `type` in the old form of log-in."""

    type: str | None = None
    user: str | None = None
    medium: str | None = None
    address: str | None = None
    country: str | None = None
    phone: str | None = None


def parse_identifier(given: object, old_form: Mapping[str, Any]) -> UserIdentifier | None:
    """The identifier in a log-in or authentication dictionary; raises `BadJson`.

    `given` is its member `identifier`. Where that is missing, `user`, or `medium` and `address`,
    may be in the dictionary itself: `old_form`.
    """
    if given is None:
        names = ("user", "medium", "address")
        given = {name: old_form[name] for name in names if old_form.get(name) is not None}
        return _convert(given) if given else None
    identifier = _convert(given)
    if identifier.type is None:
        raise BadJson("identifier: the type is missing")
    return identifier


def _convert(given: object) -> UserIdentifier:
    try:
        return msgspec.convert(given, UserIdentifier)
    except msgspec.ValidationError as error:
        raise BadJson(f"identifier: {error}") from None


class UserIdentifiers:
    """Finds the users that identifiers name."""

    def __init__(self, db: Database, server_name: str) -> None:
        self._db = db
        self._server_name = server_name

    async def find(self, identifier: UserIdentifier) -> str:
        """The named user of this server, who may or may not exist.

        For an address without an account it is a string that is no user ID, so that a client that
        tries a password with it learns nothing. Raises `Forbidden` for remote users, and `BadJson`
        for an invalid identifier.
        """
        medium, address = identifier.medium, identifier.address
        if identifier.type == "m.id.phone":
            return await self._find_phone(identifier)
        if identifier.type == "m.id.thirdparty" or (
            identifier.type is None and medium is not None and identifier.user is None
        ):
            if medium is None or address is None:
                raise BadJson("The identifier has no medium or no address")
            return await self._find_address(medium, address)
        return local_user_id(identifier, self._server_name)

    def of_appservice(self, identifier: UserIdentifier) -> str:
        """The user that an application service names. Raises `Forbidden` and `BadJson`."""
        return local_user_id(identifier, self._server_name, keep_case=True)

    async def _find_phone(self, identifier: UserIdentifier) -> str:
        if identifier.country is None or identifier.phone is None:
            raise BadJson("The identifier has no country or no phone")
        try:
            number = parse_phone_number(identifier.country, identifier.phone)
        except InvalidThirdPartyId:
            return _unknown_user(MSISDN, identifier.phone)
        return await self._find_address(MSISDN, number)

    async def _find_address(self, medium: str, address: str) -> str:
        try:
            address = canonical_address(medium, address)
        except InvalidThirdPartyId:
            return _unknown_user(medium, address)
        owner = await self._db.run(find_third_party_id_owner, medium, address)
        return _unknown_user(medium, address) if owner is None else owner


def local_user_id(identifier: UserIdentifier, server_name: str, *, keep_case: bool = False) -> str:
    """The user of this server that a Matrix ID or a localpart names, who may or may not exist.

    With `keep_case` it may be a user of an application service whose name has capital letters.
    Raises `Forbidden` for remote users, and `BadJson` for an invalid identifier.
    """
    if identifier.type not in (None, "m.id.user"):
        raise BadJson(f"Unknown type of identifier: {identifier.type}")
    if not identifier.user:
        raise BadJson("The identifier names no user")
    if not identifier.user.startswith("@"):
        return f"@{_cased(identifier.user, keep_case)}:{server_name}"
    try:
        localpart, server = parse_user_id(identifier.user)
    except InvalidIdentifier:
        raise Forbidden("Not a user ID") from None
    if server != server_name:
        raise Forbidden("The user belongs to another server")
    return f"@{_cased(localpart, keep_case)}:{server_name}"


def _cased(localpart: str, keep_case: bool) -> str:
    return localpart if keep_case else localpart.lower()


def _unknown_user(medium: str, address: str) -> str:
    """A string that is no user ID, printable and of bounded length: rate limits use it as a key."""
    return repr((medium, address))[:MAX_UNKNOWN_USER_LENGTH]
