"""Profiles: the public data of users, in named fields.

`LocalProfiles` stores the profiles of local users: a change goes through the log as
`ProfileChanged`. `Profiles` adds what users may do: it checks new values, calls what else has to
follow, such as new member events in the user's rooms, before the response, and requests the
profiles of remote users from their servers.

Spec: https://spec.matrix.org/v1.19/client-server-api/#profiles
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from homeserver.accounts.appservices.provisioning import Party, Provision, ask_nobody
from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.suspension import check_not_suspended
from homeserver.concurrency.lru_cache import LruCache
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
from homeserver.storage.accounts.profiles import SET_PROFILE_FIELD, load_profile, load_profiles
from homeserver.storage.accounts.users import find_user
from homeserver.storage.database.database import Database
from homeserver.streams.log import Log
from homeserver.streams.log_cache import LogCache

DISPLAYNAME = "displayname"
AVATAR_URL = "avatar_url"
MAX_FIELD_NAME_BYTES = 255
MAX_PROFILE_BYTES = 65_536
# They are in every member event of the user, which has to fit into 65,536 bytes itself.
MAX_MEMBER_FIELD_BYTES = 2_048
MAX_CACHED = 10_000  # profiles
FEW = 5  # profiles that are loaded one by one, and stay in memory
PAGE_PROFILES = 500  # that are read at once


class ProfileChanged(msgspec.Struct, frozen=True):
    """A local user set a field of their profile; a `value` of `None` removed it."""

    position: int
    user_id: str
    field: str
    value: bytes | None


Profile = Mapping[str, bytes]  # field to its value as JSON
FindRemoteProfile = Callable[[str, str | None], Awaitable[Profile]]
ProfileHook = Callable[[str, str], Awaitable[None]]


class LocalProfiles:
    """The profiles of local users. `apply` is to be subscribed to the log."""

    def __init__(self, db: Database, log: Log) -> None:
        self._db = db
        self._log = log
        self._cache: LogCache[str, dict[str, bytes], ProfileChanged] = LogCache(
            LruCache("profiles", MAX_CACHED), self._load, _apply
        )

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: keep the cache current."""
        for entry in entries:
            if isinstance(entry, ProfileChanged):
                self._cache.publish(entry.user_id, entry)

    async def get(self, user_id: str) -> Profile:
        """The profile of a user. Raises `NotFound` for unknown users."""
        return await self._cache.get(user_id)

    async def of_many(self, user_ids: Collection[str]) -> dict[str, Profile]:
        """The profiles of some users; unknown and deactivated ones may be left out."""
        profiles: dict[str, Profile] = {}
        missing = []
        for user_id in user_ids:
            profile = self._cache.find(user_id)
            if profile is None:
                missing.append(user_id)
            else:
                profiles[user_id] = profile
        if len(missing) > FEW:
            for start in range(0, len(missing), PAGE_PROFILES):
                page = missing[start : start + PAGE_PROFILES]
                profiles |= await self._db.run(load_profiles, page)
            return profiles
        for user_id in missing:
            try:
                profiles[user_id] = await self._cache.get(user_id)
            except NotFound:
                continue
        return profiles

    async def member_fields(self, user_id: str) -> dict[str, str]:
        """`displayname` and `avatar_url` of a user, as they are in member events."""
        profile = await self._cache.get(user_id)
        fields = {}
        for field in (DISPLAYNAME, AVATAR_URL):
            if field in profile and (value := msgspec.json.decode(profile[field])):
                fields[field] = str(value)
        return fields

    async def remove_all(self, user_id: str) -> None:
        """Remove the whole profile, as at deactivation."""
        for field in await self._db.run(load_profile, user_id):
            await self.write(user_id, field, None)
        self._cache.forget(user_id)

    async def write(self, user_id: str, field: str, value: bytes | None) -> None:
        """Store a field, which was checked; `None` removes it."""
        self._log.check_open()
        position = self._log.next_position()
        row = SET_PROFILE_FIELD.row(user_id, field, value, position)
        await self._log.append(ProfileChanged(position, user_id, field, value), [row])

    async def _load(self, user_id: str) -> dict[str, bytes]:
        user = await self._db.run(find_user, user_id)
        if user is None or user.is_deactivated:
            raise NotFound("No such user")
        return await self._db.run(load_profile, user_id)


class Profiles:
    """The profiles of users of all servers.

    `find_remote(user_id, field)` gives the profile of a user of another server, or at least one
    field of it. After a change of a user of this server each of `on_changed` is called with the
    user id and the name of the field.
    """

    def __init__(
        self,
        local: LocalProfiles,
        server_name: str,
        find_remote: FindRemoteProfile,
        on_changed: Sequence[ProfileHook] = (),
        provision: Provision = ask_nobody,
    ) -> None:
        self._provision = provision
        self._local = local
        self._server_name = server_name
        self._find_remote = find_remote
        self._on_changed = on_changed

    async def get(self, user_id: str, field: str | None, party: Party) -> Profile:
        """A profile, or one field of it: empty where that is not set. `party` asks for it.

        Raises `NotFound` for unknown users, `InvalidParam` for what is no user id, and what
        `find_remote` and `Provision` raise.
        """
        try:
            server = parse_user_id(user_id).server_name
        except InvalidIdentifier:
            raise InvalidParam("Not a user ID") from None
        if server == self._server_name:
            profile = await self._get_local(user_id, party)
        else:
            profile = await self._find_remote(user_id, field)
        if field is None:
            return profile
        return {field: profile[field]} if field in profile else {}

    async def _get_local(self, user_id: str, party: Party) -> Profile:
        try:
            return await self._local.get(user_id)
        except NotFound:
            await self._provision(user_id, party)
            return await self._local.get(user_id)

    async def set_field(self, user_id: str, field: str, value: Any) -> None:
        """Set a field of a user of this server.

        Raises `BadJson`, `InvalidParam`, `ProfileTooLarge` and `NotFound`.
        """
        if field in (DISPLAYNAME, AVATAR_URL):
            _check_member_field(field, value)
        encoded = msgspec.json.encode(value)
        profile = await self._local.get(user_id)
        others = sum(_size(name, known) for name, known in profile.items() if name != field)
        if others + _size(field, encoded) > MAX_PROFILE_BYTES:
            raise ProfileTooLarge(f"A profile must not exceed {MAX_PROFILE_BYTES} bytes")
        await self._change(user_id, profile, field, encoded)

    async def remove_field(self, user_id: str, field: str) -> None:
        """Remove a field, if it is there. Raises `NotFound`."""
        profile = await self._local.get(user_id)
        if field in profile:
            await self._change(user_id, profile, field, None)

    async def _change(
        self, user_id: str, profile: Profile, field: str, value: bytes | None
    ) -> None:
        if profile.get(field) == value:
            return
        await self._local.write(user_id, field, value)
        for hook in self._on_changed:
            await hook(user_id, field)


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
