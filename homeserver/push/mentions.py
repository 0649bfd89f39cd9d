"""Mentions: an index of the events that mention users, read for users with many unread events.

It follows the log: the rows are appended right after the event is durable, together with the
position reached. Rows that a crash kept from being stored are added at the next start.

Spec: https://spec.matrix.org/v1.19/client-server-api/#user-and-room-mentions
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred

from homeserver.protocol.events import Event
from homeserver.rooms.room.changes import EventAppended
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.storage.database.server_state import MOVE_READER, reader_position
from homeserver.storage.rooms.events_at_start import mentioning_events_after
from homeserver.storage.rooms.mentions import INSERT_MENTION, WHOLE_ROOM, mentions_between
from homeserver.streams.log import Log

SUBSCRIBER: Final = "mentions_position"
SAVE_POSITION_EVERY = 5_000  # positions, where no event mentions a user
REPLAY_BATCH_SIZE = 500  # events


@dataclass(frozen=True, slots=True)
class MentionsStored:
    """The log entry for stored mentions. No subscriber needs it."""

    position: int


class Mentions:
    """Writes and reads the index. `apply` is to be subscribed to the log.

    `start` it before an event that may mention a user is appended.
    """

    def __init__(self, db: Database, log: Log, rooms: RoomRegistry) -> None:
        self._db = db
        self._rooms = rooms
        self._log = log
        self._stored_upto: int | None = None  # up to where mentions are stored, once started

    async def start(self) -> None:
        """Store the mentions that the last process could not store."""
        upto = self._log.position
        after = await self._db.run(reader_position, SUBSCRIBER)
        while after is not None:
            found = await self._db.run(mentioning_events_after, after, REPLAY_BATCH_SIZE)
            rows = [row for place in found for row in await self._rows_of(*place)]
            await self._append(rows)
            after = found[-1][0] if len(found) == REPLAY_BATCH_SIZE else None
        self._stored_upto = upto
        await self._append([MOVE_READER.row(SUBSCRIBER, upto)])

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries."""
        rows = [
            INSERT_MENTION.row(entry.room_nid, user_id, entry.position, entry.stored.event_nid)
            for entry in entries
            if isinstance(entry, EventAppended)
            for user_id in self._mentioned(entry.stored.event, self._rooms.loaded(entry.room_nid))
        ]
        upto = entries[-1].position
        if self._stored_upto is not None and (
            rows or upto - self._stored_upto >= SAVE_POSITION_EVERY
        ):
            # In the same commit as the rows, so that it is correct whenever the process ends.
            self._stored_upto = upto
            rows.append(MOVE_READER.row(SUBSCRIBER, upto))
        if rows:
            # Not awaited: the log writes what it has accepted, however long that takes.
            self._append(rows)

    async def of(self, room: int, user_id: str, after: int, upto: int, limit: int) -> list[int]:
        """Numeric ids of the newest events that mention a user in a range, newest first."""
        return await self._db.run(mentions_between, room, user_id, after, upto, limit)

    def _append(self, rows: Sequence[Row]) -> Deferred[None]:
        return self._log.append(MentionsStored(self._log.next_position()), rows)

    async def _rows_of(self, position: int, room_nid: int, event: int) -> list[Row]:
        room = await self._rooms.by_number(room_nid)
        if room is None:
            return []
        stored = await self._rooms.load_events_in_order(room, [event])
        return [
            INSERT_MENTION.row(room_nid, user_id, position, event)
            for each in stored
            for user_id in self._mentioned(each.event, room)
        ]

    def _mentioned(self, event: Event, room: Room | None) -> Iterator[str]:
        """The mentioned local members of the room; other users are not notified."""
        if "m.mentions" not in event.content:
            return
        if mentions_room(event):
            yield WHOLE_ROOM
        is_local = self._rooms.local_server.is_local
        for user_id in sorted(mentioned_users(event)):
            if room is not None and room.membership(user_id) == "join" and is_local(user_id):
                yield user_id


def mentioned_users(event: Event) -> frozenset[str]:
    """The users whom an event mentions."""
    mentions = event.content.get("m.mentions")
    users = mentions.get("user_ids") if isinstance(mentions, dict) else None
    if not isinstance(users, list):
        return frozenset()
    return frozenset(user for user in users if isinstance(user, str))


def mentions_room(event: Event) -> bool:
    """Whether an event mentions the whole room."""
    mentions = event.content.get("m.mentions")
    return isinstance(mentions, dict) and mentions.get("room") is True


def mentions_user(event: Event, user_id: str) -> bool:
    """Whether an event mentions a user, by their id or with the whole room."""
    if "m.mentions" not in event.content:
        return False
    return mentions_room(event) or user_id in mentioned_users(event)
