"""Account data: data that clients store for their user, for the account or for one room.

The account data of a user who syncs is cached in memory, in the order of its changes, so that "what
is new since this token" costs as much as there is new. For other users the position of the last
change is kept, so that for most of them the result is "nothing" without a query.

Some types belong to other parts of the server: clients read them here, but may not set them.

Spec: https://spec.matrix.org/v1.19/client-server-api/#client-config
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import BadJson, InvalidParam, TooLarge, UserLimitExceeded
from homeserver.protocol.event_types import (
    FULLY_READ,
    IGNORED_USER_LIST,
    INVITE_PERMISSION_CONFIG,
    PUSH_RULES,
)
from homeserver.protocol.proposals.invite_filter import InviteAction, InviteFilter
from homeserver.protocol.proposals.unstable_names import UNSTABLE_INVITE_PERMISSIONS
from homeserver.storage.accounts.account_data import (
    DELETE_ACCOUNT_DATA,
    SET_ACCOUNT_DATA,
    account_data_of,
)
from homeserver.storage.database.database import Database
from homeserver.storage.push.thread_subscriptions import DELETE_THREAD_SUBSCRIPTIONS
from homeserver.streams.log import Log
from homeserver.streams.log_cache import LogCache

MANAGED_BY_SERVER = frozenset({FULLY_READ, PUSH_RULES})
INVITE_FILTERS = (INVITE_PERMISSION_CONFIG, *UNSTABLE_INVITE_PERMISSIONS)

MAX_TYPE_BYTES = 255
MAX_CONTENT_BYTES = 262_144  # of one type
MAX_FILTER_BYTES = 65_536  # of a filter of invites, which has to be compiled
MAX_TYPES = 50_000  # of one user, those of all rooms together
MAX_BYTES = 16_777_216  # of one user
MAX_CACHED = 5_000  # users
MAX_CHANGED = 100_000  # users


class ManagedByServer(BadJson):
    """Clients may not set this type of account data in this way."""

    status = 405


class AccountDataChanged(msgspec.Struct, frozen=True):
    """Account data was set: `content` is JSON, `room_id` is `None` for global account data."""

    position: int
    user_id: str
    room_id: str | None
    type: str
    content: bytes


class AccountDataErased(msgspec.Struct, frozen=True):
    """All account data of a user was deleted, and all subscriptions to threads."""

    position: int
    user_id: str


Key = tuple[str | None, str]  # room id and type
Change = tuple[str | None, str, bytes]  # room id, type and content


class _Entry(msgspec.Struct):
    """One user's account data, least recently changed first."""

    data: dict[Key, tuple[int, bytes]]
    ignored: frozenset[str]
    invite_filter: InviteFilter | None = None  # compiled when it is needed


class AccountData:
    """The account data of local users. `apply` is to be subscribed to the log.

    `defaults` has the content of global types that are never unset: type to a function of the user
    id.
    """

    def __init__(
        self,
        db: Database,
        log: Log,
        defaults: Mapping[str, Callable[[str], bytes]] | None = None,
    ) -> None:
        self._db = db
        self._log = log
        self._defaults = dict(defaults or {})
        self._cache: LogCache[str, _Entry, AccountDataChanged | AccountDataErased] = LogCache(
            LruCache("account_data", MAX_CACHED), self._load, _apply
        )
        # The last change of each user above `_floor`; lower positions are unknown here.
        self._changed: OrderedDict[str, int] = OrderedDict()
        self._floor = log.position

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: keep the cache current."""
        for log_entry in entries:
            if isinstance(log_entry, AccountDataChanged):
                self._cache.publish(log_entry.user_id, log_entry)
                self._changed.pop(log_entry.user_id, None)
                self._changed[log_entry.user_id] = log_entry.position
                if len(self._changed) > MAX_CHANGED:
                    self._floor = max(self._floor, self._changed.popitem(last=False)[1])
            elif isinstance(log_entry, AccountDataErased):
                self._cache.publish(log_entry.user_id, log_entry)

    async def content(self, user_id: str, type_: str, room_id: str | None = None) -> bytes | None:
        """The JSON content of a type, global or of one room."""
        entry = await self._cache.get(user_id)
        stored = entry.data.get((room_id, type_))
        if stored is not None:
            return stored[1]
        if room_id is None and type_ in self._defaults:
            return self._defaults[type_](user_id)
        return None

    async def of_room(self, user_id: str, room_id: str | None) -> dict[str, bytes]:
        """The contents by type, of one room, or the global ones where `room_id` is `None`."""
        entry = await self._cache.get(user_id)
        return {
            type_: content for (room, type_), (_, content) in entry.data.items() if room == room_id
        }

    async def by_room(self, user_id: str) -> dict[str | None, dict[str, bytes]]:
        """All contents by room id and type; the global ones are under `None`."""
        entry = await self._cache.get(user_id)
        found: dict[str | None, dict[str, bytes]] = {}
        for (room, type_), (_, content) in entry.data.items():
            found.setdefault(room, {})[type_] = content
        return found

    async def of_rooms(self, user_id: str, type_: str) -> dict[str, bytes]:
        """The contents of a type by room id, of all rooms that have it."""
        entry = await self._cache.get(user_id)
        return {
            room: content
            for (room, each), (_, content) in entry.data.items()
            if each == type_ and room is not None
        }

    def may_have_changed(self, user_id: str, position: int) -> bool:
        """False where nothing of this user changed above a position; does not wait.

        Above 0 there are always the defaults.
        """
        return position <= 0 or position < self._floor or self._changed.get(user_id, 0) > position

    async def changed_since(self, user_id: str, position: int) -> list[Change]:
        """The changes above a position, oldest first; above 0 they include all defaults."""
        if not self.may_have_changed(user_id, position):
            return []
        entry = await self._cache.get(user_id)
        changes = []
        for (room_id, type_), (changed, content) in reversed(entry.data.items()):
            if changed <= position:
                break
            changes.append((room_id, type_, content))
        if position == 0:
            changes += [
                (None, type_, content)
                for type_, content in self._default_contents(user_id).items()
                if (None, type_) not in entry.data
            ]
        return changes[::-1]

    async def ignored_users(self, user_id: str) -> frozenset[str]:
        """The users whom a user ignores; never themselves, even if they are in the list.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#ignoring-users
        """
        return (await self._cache.get(user_id)).ignored

    def find_ignored_users(self, user_id: str) -> frozenset[str] | None:
        """`ignored_users` without waiting, or `None` where they are not in memory."""
        entry = self._cache.find(user_id)
        return None if entry is None else entry.ignored

    async def invite_action(self, user_id: str, inviter: str) -> InviteAction:
        """What becomes of an invite of a local user; only those that are allowed are shown."""
        entry = await self._cache.get(user_id)
        if entry.invite_filter is None:
            stored = (entry.data.get((None, name)) for name in INVITE_FILTERS)
            contents = [msgspec.json.decode(each[1]) for each in stored if each is not None]
            entry.invite_filter = InviteFilter(contents)
        return entry.invite_filter.action(inviter, entry.ignored)

    async def set(
        self, user_id: str, room_id: str | None, type_: str, content: Mapping[str, Any] | bytes
    ) -> None:
        """Set account data, also of the types that the server manages. `bytes` are JSON.

        Raises `TooLarge` for one type, and `UserLimitExceeded` for all that a user has.
        """
        encoded = content if isinstance(content, bytes) else msgspec.json.encode(content)
        if type_ not in MANAGED_BY_SERVER:
            await self._check_size(user_id, (room_id, type_), encoded)
        self._log.check_open()
        position = self._log.next_position()
        row = SET_ACCOUNT_DATA.row(user_id, room_id or "", type_, encoded, position)
        log_entry = AccountDataChanged(position, user_id, room_id, type_, encoded)
        await self._log.append(log_entry, [row])

    async def _check_size(self, user_id: str, key: Key, content: bytes) -> None:
        """Raise `TooLarge` or `UserLimitExceeded` where a user would have too much account data."""
        most = MAX_FILTER_BYTES if key[1] in INVITE_FILTERS else MAX_CONTENT_BYTES
        if len(content) > most:
            raise TooLarge(f"This type of account data has at most {most} bytes")
        data = (await self._cache.get(user_id)).data
        size = sum(len(stored) for _, stored in data.values())
        before = data.get(key)
        grows = len(content) > (0 if before is None else len(before[1]))
        if (before is None and len(data) >= MAX_TYPES) or (
            grows and size + len(content) > MAX_BYTES
        ):
            raise UserLimitExceeded("The user has too much account data")

    async def erase(self, user_id: str) -> None:
        """Delete all account data of an erased user, and their subscriptions to threads.

        Devices do not learn of it: none is left.
        """
        self._log.check_open()
        erased = AccountDataErased(self._log.next_position(), user_id)
        rows = [DELETE_ACCOUNT_DATA.row(user_id), DELETE_THREAD_SUBSCRIPTIONS.row(user_id)]
        await self._log.append(erased, rows)

    async def _load(self, user_id: str) -> _Entry:
        data: dict[Key, tuple[int, bytes]] = {
            (datum.room_id or None, datum.type): (datum.position, datum.content)
            for datum in await self._db.run(account_data_of, user_id)
        }
        stored = data.get((None, IGNORED_USER_LIST))
        return _Entry(data, _ignored(user_id, stored[1]) if stored else frozenset())

    def _default_contents(self, user_id: str) -> dict[str, bytes]:
        return {type_: default(user_id) for type_, default in self._defaults.items()}


def check_client_may_set(type_: str) -> None:
    """Raise `ManagedByServer` or `InvalidParam` where a client may not set this type."""
    if type_ in MANAGED_BY_SERVER:
        raise ManagedByServer(f"{type_} cannot be set in this way")
    if not type_ or len(type_.encode()) > MAX_TYPE_BYTES:
        raise InvalidParam(f"A type of account data has 1 to {MAX_TYPE_BYTES} bytes")


def _apply(entry: _Entry, change: AccountDataChanged | AccountDataErased) -> None:
    if isinstance(change, AccountDataErased):
        # The entry may have been loaded after the erasure.
        later = {key: each for key, each in entry.data.items() if each[0] > change.position}
        entry.data = later
        entry.invite_filter = None
        if (None, IGNORED_USER_LIST) not in later:
            entry.ignored = frozenset()
        return
    key = (change.room_id, change.type)
    stored = entry.data.pop(key, None)
    if stored is not None and stored[0] > change.position:
        # The entry was loaded after this change, and is newer.
        entry.data[key] = stored
        return
    entry.data[key] = (change.position, change.content)
    if change.type in INVITE_FILTERS:
        entry.invite_filter = None
    if key == (None, IGNORED_USER_LIST):
        entry.ignored = _ignored(change.user_id, change.content)


def _ignored(user_id: str, content: bytes) -> frozenset[str]:
    """The users in the content of `m.ignored_user_list`, which may have any form.

    The user themselves is left out: all their devices would lose their own messages.
    """
    users = msgspec.json.decode(content).get("ignored_users")
    return frozenset(users) - {user_id} if isinstance(users, dict) else frozenset()
