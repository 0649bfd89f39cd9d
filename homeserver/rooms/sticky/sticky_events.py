"""The events of all rooms that stick, in memory: they are few, and end within an hour.

They follow the log: an event is added when it enters a timeline, when it is received as a part of
the history, or when it is accepted after all. It is removed when it is redacted, or has ended.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4354
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from homeserver.concurrency.periodic import PeriodicTask
from homeserver.protocol.errors import LimitExceeded
from homeserver.protocol.proposals.sticky_events import MAX_DURATION_MS
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.sticky_rows import may_be_accepted_later, may_stick_at
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import (
    EventAppended,
    EventsPurged,
    EventsStored,
    RedactedEvent,
    RoomDeleted,
)
from homeserver.rooms.room.user_rooms import MemberRooms
from homeserver.rooms.sticky.room_sticky_events import (
    MAX_OF_SENDER,
    RoomStickyEvents,
    StickyEvent,
)
from homeserver.storage.database.database import Database
from homeserver.storage.retention.sticky_events import (
    delete_ended_sticky_events,
    sticky_events_after,
)
from homeserver.streams.sync_tokens import SyncToken

CLEANUP_SECONDS = 60.0
PAGE_SIZE = 1_000


class StickyEvents:
    """The sticky events by room. `load` them, have `apply` follow the log, `start` and `stop`."""

    def __init__(self, db: Database, local_server: LocalServer) -> None:
        self._db = db
        self._local_server = local_server
        self._rooms: dict[int, RoomStickyEvents] = {}
        self._rows_until_ms = local_server.now_ms() + MAX_DURATION_MS  # none ends later
        self._cleaned_up_ms = 0
        self._cleanup = PeriodicTask(
            local_server.clock, CLEANUP_SECONDS, self._end, name="ending sticky events"
        )

    async def load(self) -> None:
        """Read what sticks at the start."""
        after, now_ms, placed = 0, self._local_server.now_ms(), []
        while True:
            page = await self._db.run(sticky_events_after, now_ms, after, PAGE_SIZE)
            for row in page:
                if row.position is None:
                    room = self._rooms.setdefault(row.room, RoomStickyEvents())
                    room.add_soft_failed(row.event, row.sender, row.until_ms)
                else:
                    place = row.event, row.position, row.until_ms, row.sender, row.size
                    placed.append((row.room, StickyEvent(*place)))
            if len(page) < PAGE_SIZE:
                break
            after = page[-1].event
        for room_nid, event in sorted(placed, key=lambda each: each[1].position):
            self._rooms.setdefault(room_nid, RoomStickyEvents()).add(event)

    def start(self) -> None:
        """Begin to remove what has ended."""
        self._cleanup.start()

    async def stop(self) -> None:
        """Remove nothing any more."""
        await self._cleanup.stop()

    @property
    def rooms(self) -> AbstractSet[int]:
        """The nids of the rooms in which events may stick."""
        return self._rooms.keys()

    def above(self, room_nid: int, position: int) -> list[StickyEvent]:
        """The events of a room above a position that still stick, in the order of their places."""
        room = self._rooms.get(room_nid)
        if room is None:
            return []
        now_ms = self._local_server.now_ms()
        return [each for each in room.above(position) if each.until_ms > now_ms]

    def changed_rooms(self, rooms: MemberRooms, since: SyncToken) -> list[int]:
        """Those of a user's rooms in which events stick that a client lacks."""
        return [
            room_nid
            for room_nid in self._rooms.keys() & rooms.keys()
            if self.above(room_nid, since.of_sticky(room_nid))
        ]

    def local(self, room_nid: int, position: int = 0) -> list[StickyEvent]:
        """The events of local users among those above a position."""
        is_local = self._local_server.is_local
        return [each for each in self.above(room_nid, position) if is_local(each.sender)]

    def soft_failed(self, room_nid: int, senders: Collection[str]) -> list[int]:
        """The nids of events of some senders that may yet be accepted."""
        room = self._rooms.get(room_nid)
        if room is None:
            return []
        now_ms = self._local_server.now_ms()
        return [
            event_nid
            for event_nid, (sender, until_ms) in room.soft_failed.items()
            if sender in senders and until_ms > now_ms
        ]

    def all_soft_failed(self) -> Iterator[tuple[int, set[str]]]:
        """The rooms with events that may yet be accepted, and the senders of these."""
        for room_nid, room in self._rooms.items():
            if room.soft_failed:
                yield room_nid, {sender for sender, _ in room.soft_failed.values()}

    def check_may_send(self, room_nid: int, sender: str) -> None:
        """Raise `LimitExceeded` for a user with as many events as may stick in a room."""
        room = self._rooms.get(room_nid)
        own = [] if room is None else room.of_sender(sender)
        if len(own) < MAX_OF_SENDER:
            return
        now_ms = self._local_server.now_ms()
        sticking = [each.until_ms for each in own if each.until_ms > now_ms]
        if len(sticking) >= MAX_OF_SENDER:
            raise LimitExceeded(
                max(1, min(sticking) - now_ms), "Too many of your events stick in this room"
            )

    def apply(self, entries: Sequence[Any]) -> None:
        """Follow the log (called by it)."""
        for entry in entries:
            if isinstance(entry, EventAppended):
                self._add(entry.room_nid, entry.stored, entry.position)
                self._remove_redacted(entry.room_nid, entry.redacts)
            elif isinstance(entry, EventsStored):
                for stored in newly_sticking(entry):
                    self._add(entry.room, stored, entry.position)
                for stored in entry.events:
                    self._add_soft_failed(entry.room, stored, entry.position)
                self._remove_redacted(entry.room, entry.redacts)
            elif isinstance(entry, EventsPurged):
                self._remove(entry.room, entry.event_nids)
            elif isinstance(entry, RoomDeleted):
                self._rooms.pop(entry.room, None)

    def _add(self, room_nid: int, stored: StoredEvent, position: int) -> None:
        until_ms = self._end_of(stored, position)
        if until_ms is not None:
            event = stored.event
            self._room(room_nid).add(
                StickyEvent(stored.event_nid, position, until_ms, event.sender, len(event.json))
            )

    def _add_soft_failed(self, room_nid: int, stored: StoredEvent, position: int) -> None:
        if may_be_accepted_later(stored):
            until_ms = self._end_of(stored, position)
            if until_ms is not None:
                self._room(room_nid).add_soft_failed(
                    stored.event_nid, stored.event.sender, until_ms
                )

    def _end_of(self, stored: StoredEvent, position: int) -> int | None:
        """When an event that still sticks stops."""
        until_ms = may_stick_at(stored, position)
        if until_ms is None or until_ms <= self._local_server.now_ms():
            return None
        return until_ms

    def _room(self, room_nid: int) -> RoomStickyEvents:
        self._rows_until_ms = self._local_server.now_ms() + MAX_DURATION_MS
        return self._rooms.setdefault(room_nid, RoomStickyEvents())

    def _remove_redacted(self, room_nid: int, redacted: RedactedEvent | None) -> None:
        if redacted is not None:
            self._remove(room_nid, (redacted.event_nid,))

    def _remove(self, room_nid: int, event_nids: Iterable[int]) -> None:
        room = self._rooms.get(room_nid)
        if room is not None:
            for event_nid in event_nids:
                room.remove(event_nid)

    async def _end(self) -> None:
        now_ms = self._local_server.now_ms()
        for room_nid, room in list(self._rooms.items()):
            room.end(now_ms)
            if room.is_empty:
                del self._rooms[room_nid]
        if self._rows_until_ms > self._cleaned_up_ms:
            # Rows of events that were redacted, or dropped, end with the others.
            await self._db.run(delete_ended_sticky_events, now_ms)
            self._cleaned_up_ms = now_ms


def newly_sticking(entry: EventsStored) -> list[StoredEvent]:
    """The events that members get if they still stick: no timeline of a sync has them."""
    return [
        stored
        for stored in entry.events
        if (stored.position or 0) < 0 and may_stick_at(stored, entry.position) is not None
    ]
