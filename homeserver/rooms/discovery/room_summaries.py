"""Summaries of rooms, for users who are not in them.

The part of a summary that comes from the room's state is kept in memory, also for rooms that are
not, until the log has an event that changes it. The number of members is current.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import NotFound
from homeserver.protocol.event_types import (
    AVATAR,
    CANONICAL_ALIAS,
    CREATE,
    ENCRYPTION,
    GUEST_ACCESS,
    HISTORY_VISIBILITY,
    JOIN_RULES,
    NAME,
    TOPIC,
)
from homeserver.protocol.history_visibility import visibility_of
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.rooms.room.changes import EventAppended, StateChanged, StateKey
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.events import state_root_at
from homeserver.storage.rooms.rooms import find_room
from homeserver.streams.positions import MAX_POSITION

CAPACITY = 20_000  # rooms
_TYPES = (
    CREATE,
    NAME,
    TOPIC,
    AVATAR,
    CANONICAL_ALIAS,
    JOIN_RULES,
    HISTORY_VISIBILITY,
    GUEST_ACCESS,
    ENCRYPTION,
)
_KEYS: tuple[StateKey, ...] = tuple((event_type, "") for event_type in _TYPES)

_Contents = Mapping[str, Mapping[str, Any]]  # by event type


class PublicRoom(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A room as the room directory shows it; a member that is `None` is left out of the JSON."""

    room_id: str
    num_joined_members: int
    world_readable: bool
    guest_can_join: bool
    name: str | None = None
    topic: str | None = None
    canonical_alias: str | None = None
    avatar_url: str | None = None
    join_rule: str | None = None
    room_type: str | None = None


class RoomSummary(PublicRoom, frozen=True, kw_only=True, omit_defaults=True):
    """A room as shown to a user who may join; `membership` is theirs."""

    room_version: str | None = None
    encryption: str | None = None
    allowed_room_ids: Sequence[str] = ()
    membership: str | None = None


class RoomSummaries:
    """Makes summaries. Subscribe `apply` to the log."""

    def __init__(self, db: Database, rooms: RoomRegistry) -> None:
        self._db = db
        self._rooms = rooms
        self._summaries: LruCache[int, RoomSummary] = LruCache("room_summaries", CAPACITY)
        self._changes = 0

    def apply(self, entries: Sequence[Any]) -> None:
        """Drop the summaries of rooms that changed (called by the log)."""
        for entry in entries:
            if isinstance(entry, StateChanged) and _matters(entry):
                self._changes += 1
                self._summaries.pop(entry.room_nid)

    async def of(self, room_nid: int, joined: int = 0) -> RoomSummary | None:
        """The summary of the room with this nid, or `None` if there is none.

        `joined` is the number of its members, as far as the caller knows; for a room in memory its
        own number is used.
        """
        room = self._rooms.loaded(room_nid)
        if room is not None:
            joined = room.joined_count
        summary = self._summaries.get(room_nid)
        if summary is None:
            summary = await self._make(room_nid)
            if summary is None:
                return None
        return msgspec.structs.replace(summary, num_joined_members=joined)

    async def for_user(self, user_id: str, room_id: str) -> RoomSummary:
        """The summary of a room that the user may know of. Raises `NotFound` for all others."""
        room = await self._rooms.find(room_id)
        if room is not None:
            summary = await self.of(room.room_nid)
            assert summary is not None, "a room that is loaded exists"
            if await self._may_know(user_id, room, summary):
                return msgspec.structs.replace(summary, membership=room.membership(user_id))
        raise NotFound("The room does not exist, or you may not see it")

    async def _may_know(self, user_id: str, room: Room, summary: RoomSummary) -> bool:
        if (
            room.membership(user_id) in ("join", "invite", "knock")
            or summary.join_rule in ("public", "knock", "knock_restricted")
            or summary.world_readable
        ):
            return True
        for allowed_id in summary.allowed_room_ids:
            allowed = await self._rooms.find(allowed_id)
            if allowed is not None and allowed.membership(user_id) == "join":
                return True
        return False

    async def _make(self, room_nid: int) -> RoomSummary | None:
        changes = self._changes
        row = await self._db.run(find_room, room_nid)
        if row is None:
            return None
        (room_id,) = await self._rooms.room_ids([room_nid])
        contents = await self._contents(room_nid, row.version)
        summary = RoomSummary(
            room_id=room_id,
            num_joined_members=0,
            room_version=row.version,
            **_fields(contents),
        )
        if changes == self._changes:
            self._summaries.put(room_nid, summary)
        return summary

    async def _contents(self, room_nid: int, version: str) -> _Contents:
        """Contents of the state events that a summary is made of."""
        room = self._rooms.loaded(room_nid)
        if room is not None:
            state = await self._rooms.current(room, _KEYS)
            return {key[0]: stored.shown.content for key, stored in state.items()}
        root = await self._db.run(state_root_at, room_nid, MAX_POSITION) or EMPTY
        state = await self._rooms.state_at(ROOM_VERSIONS[version], root, _KEYS)
        return {key[0]: stored.shown.content for key, stored in state.items()}


def _matters(entry: StateChanged) -> bool:
    if entry.changes and any(key in entry.changes for key in _KEYS):
        return True
    redacted = entry.redacts if isinstance(entry, EventAppended) else None
    return redacted is not None and (redacted.type, redacted.state_key) in _KEYS


def _fields(contents: _Contents) -> dict[str, Any]:
    """The members of a summary that come from the room's state."""
    join_rules = contents.get(JOIN_RULES, {})
    guest_access = contents.get(GUEST_ACCESS, {}).get("guest_access")
    visibility = visibility_of(contents.get(HISTORY_VISIBILITY))
    return {
        "world_readable": visibility == "world_readable",
        "guest_can_join": guest_access == "can_join",
        "name": _text(contents, NAME, "name"),
        "topic": plain_topic(contents.get(TOPIC, {})),
        "canonical_alias": _text(contents, CANONICAL_ALIAS, "alias"),
        "avatar_url": _text(contents, AVATAR, "url"),
        "join_rule": _text(contents, JOIN_RULES, "join_rule"),
        "room_type": _text(contents, CREATE, "type"),
        "encryption": _text(contents, ENCRYPTION, "algorithm"),
        "allowed_room_ids": _allowed_rooms(join_rules),
    }


def plain_topic(content: Mapping[str, Any]) -> str | None:
    """The topic in plain text, if it has such a form.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#mroomtopic
    """
    block = content.get("m.topic")
    forms = block.get("m.text") if isinstance(block, dict) else None
    for form in forms if isinstance(forms, list) else ():
        if isinstance(form, dict) and form.get("mimetype", "text/plain") == "text/plain":
            body = form.get("body")
            if isinstance(body, str) and body:
                return body
    topic = content.get("topic")
    return topic if isinstance(topic, str) and topic else None


def _text(contents: _Contents, event_type: str, name: str) -> str | None:
    value = contents.get(event_type, {}).get(name)
    return value if isinstance(value, str) and value else None


def _allowed_rooms(join_rules: Mapping[str, Any]) -> list[str]:
    """The rooms whose members may join.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
    """
    allow = join_rules.get("allow")
    if join_rules.get("join_rule") not in ("restricted", "knock_restricted"):
        return []
    return [
        condition["room_id"]
        for condition in (allow if isinstance(allow, list) else ())
        if isinstance(condition, dict)
        and condition.get("type") == "m.room_membership"
        and isinstance(condition.get("room_id"), str)
    ]
