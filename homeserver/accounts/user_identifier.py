"""User identifiers: how a client says whose password it is about to give.

Spec: https://spec.matrix.org/v1.19/client-server-api/#identifier-types
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from homeserver.protocol.errors import BadJson, Forbidden
from homeserver.protocol.identifiers import InvalidIdentifier, parse_user_id


class UserIdentifier(msgspec.Struct, omit_defaults=True):
    """A Matrix ID, a third-party ID or a phone number. The old form of log-in has no `type`."""

    type: str | None = None
    user: str | None = None
    medium: str | None = None
    address: str | None = None
    country: str | None = None
    phone: str | None = None


def parse_identifier(given: object, old_form: Mapping[str, Any]) -> UserIdentifier | None:
    """The identifier in a log-in or authentication dictionary; raises `BadJson`.

    `given` is its member `identifier`. Where that is missing, `user`, or `medium` and `address`,
    may stand in the dictionary itself: `old_form`.
    """
    if given is None:
        names = ("user", "medium", "address")
        given = {name: old_form[name] for name in names if old_form.get(name) is not None}
        if not given:
            return None
    try:
        return msgspec.convert(given, UserIdentifier)
    except msgspec.ValidationError as error:
        raise BadJson(f"identifier: {error}") from None


def local_user_id(identifier: UserIdentifier, server_name: str) -> str:
    """The user of this server that is meant, who may or may not exist.

    Raises `Forbidden` for users of other servers and for addresses that belong to nobody here, and
    `BadJson` for what identifies nobody.
    """
    if identifier.type in ("m.id.thirdparty", "m.id.phone") or (
        identifier.medium is not None and identifier.user is None
    ):
        raise Forbidden("No account here has this address")
    if identifier.type not in (None, "m.id.user"):
        raise BadJson(f"Unknown type of identifier: {identifier.type}")
    if not identifier.user:
        raise BadJson("The identifier names no user")
    if not identifier.user.startswith("@"):
        return f"@{identifier.user.lower()}:{server_name}"
    try:
        localpart, server = parse_user_id(identifier.user)
    except InvalidIdentifier:
        raise Forbidden("Not a user ID") from None
    if server != server_name:
        raise Forbidden("The user belongs to another server")
    return f"@{localpart.lower()}:{server_name}"
