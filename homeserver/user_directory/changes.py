"""What changes the user directory: the items of its durable reader.

An item names what may have changed, a room with some of its members, or a user of this server. The
directory is then made to agree with the database as it is, so an item may be handled twice, and
late.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from homeserver.accounts.user_data.profiles import AVATAR_URL, DISPLAYNAME, ProfileChanged
from homeserver.protocol.event_types import (
    HISTORY_VISIBILITY,
    HISTORY_VISIBILITY_KEY,
    JOIN_RULES,
    JOIN_RULES_KEY,
    MEMBER,
    REDACTION,
)
from homeserver.rooms.room.changes import EventAppended, StateChanged, StateKey
from homeserver.storage.accounts.profiles import profile_changes_between
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.events import bare_events, event_numbers
from homeserver.storage.rooms.names import Names
from homeserver.storage.rooms.timeline_pages import page_end, resolutions_between
from homeserver.storage.user_directory.sources import (
    changed_members_between,
    events_of_types_between,
)
from homeserver.streams.durable_reader import ItemPage

PAGE_EVENTS = 5_000  # of all rooms
PAGE_PROFILES = 500
MANY_MEMBERS = 500  # from here on all members of the room are looked at
PROFILE_FIELDS = (DISPLAYNAME, AVATAR_URL)
_SETTINGS = (JOIN_RULES_KEY, HISTORY_VISIBILITY_KEY)


class RoomUsersChanged(msgspec.Struct, frozen=True):
    """Members of a room changed; `members` is `None` where they are many.

    `has_settings`: it may have changed who can see the members.
    """

    position: int
    room_nid: int
    members: frozenset[str] | None
    has_settings: bool = False


class LocalProfileChanged(msgspec.Struct, frozen=True):
    """A user of this server changed their name or avatar."""

    position: int
    user_id: str


DirectoryChange = RoomUsersChanged | LocalProfileChanged


class DirectoryChanges:
    """The changes in the log's entries, or in the database."""

    def __init__(self, db: Database, names: Names) -> None:
        self._db = db
        self._names = names

    def select(self, entries: Sequence[Any]) -> Iterator[DirectoryChange]:
        """The changes in log entries."""
        for entry in entries:
            if isinstance(entry, StateChanged):
                redacted = entry.redacts if isinstance(entry, EventAppended) else None
                if entry.changes or (redacted is not None and redacted.state_key is not None):
                    change = _room_change(entry)
                    if change is not None:
                        yield change
            elif isinstance(entry, ProfileChanged) and entry.field in PROFILE_FIELDS:
                yield LocalProfileChanged(entry.position, entry.user_id)

    async def load(self, after: int, upto: int) -> ItemPage[DirectoryChange]:
        """A page of the changes in the database."""
        run = self._db.run
        end = await run(page_end, after, upto, PAGE_EVENTS)
        profiles = await run(
            profile_changes_between, after, end, list(PROFILE_FIELDS), PAGE_PROFILES
        )
        if len(profiles) >= PAGE_PROFILES:
            end = profiles[-1][0]
        changes: list[DirectoryChange] = [LocalProfileChanged(*row) for row in profiles]
        changes += await self._load_members(after, end)
        changes += await self._load_settings(after, end)
        changes += await self._load_redacted(after, end)
        return ItemPage(sorted(changes, key=lambda change: change.position), end)

    async def _load_members(self, after: int, upto: int) -> list[RoomUsersChanged]:
        rows = await self._db.run(changed_members_between, after, upto, MANY_MEMBERS)
        names = await self._names.names({nid for row in rows for nid in row.members or ()})
        return [
            RoomUsersChanged(
                row.position,
                row.room,
                None if row.members is None else frozenset(names[nid] for nid in row.members),
            )
            for row in rows
        ]

    async def _load_settings(self, after: int, upto: int) -> list[RoomUsersChanged]:
        """Rooms whose settings may have changed: by events, or by a resolution of states."""
        types = await self._names.find_nids([JOIN_RULES, HISTORY_VISIBILITY])
        events = await self._db.run(events_of_types_between, after, upto, list(types.values()))
        places = [(position, room) for position, room, _ in events]
        places += await self._db.run(resolutions_between, after, upto)
        return [RoomUsersChanged(*place, frozenset(), has_settings=True) for place in places]

    async def _load_redacted(self, after: int, upto: int) -> list[RoomUsersChanged]:
        """Changes by redactions, of member events and of settings."""
        type_nid = await self._names.find_nid(REDACTION)
        if type_nid is None:
            return []
        places = await self._db.run(events_of_types_between, after, upto, [type_nid])
        bare = await self._db.run(bare_events, [event for _, _, event in places])
        targets = {event: _target(json) for event, _, json, _ in bare}
        changes = []
        for position, room, event in places:
            target = targets.get(event)
            if target is not None:
                changes += await self._load_target(position, room, target)
        return changes

    async def _load_target(self, position: int, room: int, event_id: str) -> list[RoomUsersChanged]:
        numbers = await self._db.run(event_numbers, room, [event_id])
        targets = await self._db.run(bare_events, [number for _, number in numbers])
        keys = {_state_key(json) for _, _, json, _ in targets}
        change = _change(position, room, {key for key in keys if key is not None})
        return [] if change is None else [change]


class _Redaction(msgspec.Struct):
    """The parts of a redaction that name its target, by room version."""

    content: dict[str, Any]
    redacts: Any = None


class _StateEvent(msgspec.Struct):
    type: str
    state_key: str | None = None


def _room_change(entry: StateChanged) -> RoomUsersChanged | None:
    keys = set(entry.changes)
    if isinstance(entry, EventAppended) and entry.redacts is not None:
        redacted = entry.redacts
        if redacted.state_key is not None:
            keys.add((redacted.type, redacted.state_key))
    return _change(entry.position, entry.room_nid, keys)


def _change(position: int, room_nid: int, keys: set[StateKey]) -> RoomUsersChanged | None:
    members = frozenset(user_id for event_type, user_id in keys if event_type == MEMBER)
    has_settings = any(key in keys for key in _SETTINGS)
    if not (members or has_settings):
        return None
    is_many = len(members) > MANY_MEMBERS
    return RoomUsersChanged(position, room_nid, None if is_many else members, has_settings)


def _target(json: bytes) -> str | None:
    redaction = msgspec.json.decode(json, type=_Redaction)
    target = redaction.content.get("redacts", redaction.redacts)
    return target if isinstance(target, str) else None


def _state_key(json: bytes) -> StateKey | None:
    event = msgspec.json.decode(json, type=_StateEvent)
    return None if event.state_key is None else (event.type, event.state_key)
