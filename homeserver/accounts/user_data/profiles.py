"""Profiles: the public data of users, in named fields.

A change goes through the log as `ProfileChanged`. Its consequences, such as new member events in
the user's rooms, are produced by the callables in `on_profile_changed`, before the response.
Profiles of remote users are requested through `find_remote`.

Spec: https://spec.matrix.org/v1.19/client-server-api/#profiles
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.suspension import check_not_suspended
from homeserver.accounts.user_data.user_cache import UserCache
from homeserver.protocol.errors import (
    BadJson,
    Forbidden,
    GuestAccessForbidden,
    InvalidParam,
    KeyTooLarge,
    NotFound,
    ProfileTooLarge,
)
from homeserver.protocol.identifiers import (
    InvalidIdentifier,
    is_valid_namespaced_id,
    parse_user_id,
)
from homeserver.storage.accounts.profiles import SET_PROFILE_FIELD, load_profile
from homeserver.storage.accounts.users import find_user
from homeserver.storage.database.database import Database
from homeserver.streams.log import Log

DISPLAYNAME = "displayname"
AVATAR_URL = "avatar_url"
MAX_FIELD_NAME_BYTES = 255
MAX_PROFILE_BYTES = 65_536
# They are in every member event of the user, which has to fit into 65,536 bytes itself.
MAX_MEMBER_FIELD_BYTES = 2_048
MAX_CACHED = 10_000  # profiles


@dataclass(frozen=True, slots=True)
class ProfileChanged:
    """A local user set a field of their profile; a `value` of `None` removed it."""

    position: int
    user_id: str
    field: str
    value: bytes | None


Profile = Mapping[str, bytes]  # field to its value as JSON
FindRemote = Callable[[str, str | None], Awaitable[Profile]]
ProfileHook = Callable[[str, str], Awaitable[None]]


class Profiles:
    """The profiles of local users, and access to those of remote users.

    `apply` is to be subscribed to the log.
    """

    def __init__(self, db: Database, log: Log, server_name: str) -> None:
        self.on_profile_changed: list[ProfileHook] = []
        self.find_remote: FindRemote | None = None
        self._db = db
        self._log = log
        self._server_name = server_name
        self._cache: UserCache[dict[str, bytes], ProfileChanged] = UserCache(
            self._load, _apply, MAX_CACHED
        )

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: keep the cache current."""
        for entry in entries:
            if isinstance(entry, ProfileChanged):
                self._cache.publish(entry.user_id, entry)

    async def get(self, user_id: str, field: str | None = None) -> Profile:
        """A profile, or one field of it: empty where that is not set.

        `find_remote` need not return more than `field`. Raises `NotFound` for unknown users.
        """
        try:
            server = parse_user_id(user_id).server_name
        except InvalidIdentifier:
            raise InvalidParam("Not a user ID") from None
        if server != self._server_name:
            if self.find_remote is None:
                raise NotFound("The profiles of that server are unavailable")
            profile = await self.find_remote(user_id, field)
        else:
            profile = await self._cache.get(user_id)
        if field is None:
            return profile
        return {field: profile[field]} if field in profile else {}

    async def member_fields(self, user_id: str) -> dict[str, str]:
        """`displayname` and `avatar_url` of a local user, as they are in member events."""
        profile = await self._cache.get(user_id)
        fields = {}
        for field in (DISPLAYNAME, AVATAR_URL):
            if field in profile and (value := msgspec.json.decode(profile[field])):
                fields[field] = str(value)
        return fields

    async def set_field(self, user_id: str, field: str, value: Any) -> None:
        """Set a field of a local user.

        Raises `BadJson`, `InvalidParam`, `ProfileTooLarge` and `NotFound`.
        """
        if field in (DISPLAYNAME, AVATAR_URL):
            _check_member_field(field, value)
        encoded = msgspec.json.encode(value)
        profile = await self._cache.get(user_id)
        others = sum(_size(name, known) for name, known in profile.items() if name != field)
        if others + _size(field, encoded) > MAX_PROFILE_BYTES:
            raise ProfileTooLarge(f"A profile must not exceed {MAX_PROFILE_BYTES} bytes")
        await self._change(user_id, profile, field, encoded)

    async def remove_field(self, user_id: str, field: str) -> None:
        """Remove a field, if it is there. Raises `NotFound`."""
        profile = await self._cache.get(user_id)
        if field in profile:
            await self._change(user_id, profile, field, None)

    async def remove_all(self, user_id: str) -> None:
        """Remove the whole profile, as at deactivation; no hook is called."""
        for field in await self._db.run(load_profile, user_id):
            await self._write(user_id, field, None)
        self._cache.forget(user_id)

    async def _change(
        self, user_id: str, profile: Profile, field: str, value: bytes | None
    ) -> None:
        if profile.get(field) == value:
            return
        await self._write(user_id, field, value)
        for hook in self.on_profile_changed:
            await hook(user_id, field)

    async def _write(self, user_id: str, field: str, value: bytes | None) -> None:
        self._log.check_open()
        position = self._log.next_position()
        row = SET_PROFILE_FIELD.row(user_id, field, value, position)
        await self._log.append(ProfileChanged(position, user_id, field, value), [row])

    async def _load(self, user_id: str) -> dict[str, bytes]:
        user = await self._db.run(find_user, user_id)
        if user is None or user.is_deactivated:
            raise NotFound("No such user")
        return await self._db.run(load_profile, user_id)


def check_may_change(caller: Requester, user_id: str, field: str) -> None:
    """Raise `Forbidden`, `UserSuspended` or `GuestAccessForbidden` unless a caller may change this.

    Guests may change their display name only.
    """
    check_field_name(field)
    if caller.user_id != user_id:
        raise Forbidden("You may change your own profile only")
    check_not_suspended(caller)
    if caller.is_guest and field != DISPLAYNAME:
        raise GuestAccessForbidden("Guests may change their display name only")


def check_field_name(field: str) -> None:
    """Raise `KeyTooLarge` or `InvalidParam` for an invalid name of a profile field."""
    if len(field.encode()) > MAX_FIELD_NAME_BYTES:
        raise KeyTooLarge(f"The name of a field must not exceed {MAX_FIELD_NAME_BYTES} bytes")
    if not is_valid_namespaced_id(field):
        raise InvalidParam("Not the name of a profile field")


def _check_member_field(field: str, value: Any) -> None:
    if not isinstance(value, str):
        raise BadJson(f"{field} must be a string")
    if len(value.encode()) > MAX_MEMBER_FIELD_BYTES:
        raise InvalidParam(f"{field} must not exceed {MAX_MEMBER_FIELD_BYTES} bytes")


def _size(name: str, value: bytes) -> int:
    """The bytes that a field adds to the profile as JSON: quotes, colon and comma included."""
    return len(name) + len(value) + 4


def _apply(profile: dict[str, bytes], change: ProfileChanged) -> None:
    if change.value is None:
        profile.pop(change.field, None)
    else:
        profile[change.field] = change.value
