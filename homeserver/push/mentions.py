"""Mentions: an index of the events that name somebody, which is read for those who were away long.

It follows the log: the rows are handed to it right after the event is durable, together with a note
of how far it has come. What a crash kept from being stored is made up for at the next start.

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

READER: Final = "mentions_position"
SAVE_POSITION_EVERY = 5_000  # positions, where nobody is mentioned
REPLAY_BATCH_SIZE = 500  # events


@dataclass(frozen=True, slots=True)
class MentionsStored:
    """It was stored whom an event names. No reader needs to know."""

    position: int


class Mentions:
    """Writes and reads the index. `apply` is to be subscribed to the log.

    `start` it before anything is appended that may mention somebody.
    """

    def __init__(self, db: Database, rooms: RoomRegistry) -> None:
        self._db = db
        self._rooms = rooms
        self._log = rooms.stores.log
        self._noted: int | None = None  # the position up to which all is stored, once it is

    async def start(self) -> None:
        """Store what the last process could not store any more."""
        upto = self._log.position
        after = await self._db.run(reader_position, READER)
        while after is not None:
            found = await self._db.run(mentioning_events_after, after, REPLAY_BATCH_SIZE)
            rows = [row for place in found for row in await self._rows_of(*place)]
            await self._append(rows)
            after = found[-1][0] if len(found) == REPLAY_BATCH_SIZE else None
        self._noted = upto
        await self._append([MOVE_READER.row(READER, upto)])

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log."""
        rows = [
            INSERT_MENTION.row(fact.room_nid, user_id, fact.position, fact.stored.event_nid)
            for fact in facts
            if isinstance(fact, EventAppended)
            for user_id in self._mentioned(fact.stored.event, self._rooms.loaded(fact.room_nid))
        ]
        upto = facts[-1].position
        if self._noted is not None and (rows or upto - self._noted >= SAVE_POSITION_EVERY):
            # In the same commit as the rows, so that it is true whenever the process ends.
            self._noted = upto
            rows.append(MOVE_READER.row(READER, upto))
        if rows:
            # The log answers for it: what it has taken is written, however long that takes.
            self._append(rows)

    async def of(self, room: int, user_id: str, after: int, upto: int, limit: int) -> list[int]:
        """Numbers of the newest events between two positions that name a user, newest first."""
        return await self._db.run(mentions_between, room, user_id, after, upto, limit)

    def _append(self, rows: Sequence[Row]) -> Deferred[None]:
        return self._log.append(MentionsStored(self._log.next_position()), rows)

    async def _rows_of(self, position: int, number: int, event: int) -> list[Row]:
        room = await self._rooms.by_number(number)
        if room is None:
            return []
        stored = await self._rooms.stores.events.load_in_order(room.version, [event])
        return [
            INSERT_MENTION.row(number, user_id, position, event)
            for each in stored
            for user_id in self._mentioned(each.event, room)
        ]

    def _mentioned(self, event: Event, room: Room | None) -> Iterator[str]:
        """Members of the room on this server; who is no member is not notified."""
        if "m.mentions" not in event.content:
            return
        if names_room(event):
            yield WHOLE_ROOM
        is_ours = self._rooms.local_server.is_local
        for user_id in sorted(named_users(event)):
            if room is not None and room.membership(user_id) == "join" and is_ours(user_id):
                yield user_id


def named_users(event: Event) -> frozenset[str]:
    """The users whom an event mentions."""
    mentions = event.content.get("m.mentions")
    users = mentions.get("user_ids") if isinstance(mentions, dict) else None
    if not isinstance(users, list):
        return frozenset()
    return frozenset(user for user in users if isinstance(user, str))


def names_room(event: Event) -> bool:
    """Whether an event mentions everybody in the room."""
    mentions = event.content.get("m.mentions")
    return isinstance(mentions, dict) and mentions.get("room") is True


def names(event: Event, user_id: str) -> bool:
    """Whether an event mentions a user, by their id or with everybody."""
    if "m.mentions" not in event.content:
        return False
    return names_room(event) or user_id in named_users(event)
