"""The purge of a room's history: messages before an event, or older than a time, are deleted.

An administrator creates the job; state stays, and so does what local users have sent, unless that
is to be deleted too: other servers may have no copy of it that its readers can still get.
"""

from typing import Any

import msgspec

from homeserver.protocol.events import Event
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.history.message_lifetimes import Cutoff
from homeserver.rooms.retention.event_purge import EventPurge
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.storage.database.background_jobs import Job, Progress
from homeserver.storage.database.database import Database
from homeserver.storage.retention.purged_history import (
    count_messages,
    messages_between,
)
from homeserver.streams.positions import MAX_POSITION

PURGE_HISTORY = "purge_history"
MAX_EXAMINED = 200  # events of a step
MAX_COUNTED = 1_000_000  # messages; how many more there are is not worth the time
BEGINNING = [-1, -MAX_POSITION]  # before all places of a history: (depth, position)


class HistoryPurgeRequest(msgspec.Struct, frozen=True):
    """Which messages of a room to delete.

    Those before a place in its history, (depth, position), or older than a time in ms; those of
    local users only `with_local`.
    """

    room_nid: int
    room_id: str  # for people, who see the arguments of jobs
    before: tuple[int, int] | None
    older_than: int | None
    with_local: bool

    def arguments(self) -> dict[str, Any]:
        """The arguments of the job."""
        return {
            "room": self.room_nid,
            "room_id": self.room_id,
            "before": self.before,
            "older_than": self.older_than,
            "with_local": self.with_local,
        }


class HistoryPurge:
    """Makes the steps of these jobs."""

    def __init__(
        self, db: Database, rooms: RoomRegistry, events: EventStore, purge: EventPurge
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._events = events
        self._purge = purge

    async def step(self, job: Job) -> Progress:
        """Delete some messages. The progress is the place of the last one that was examined."""
        wanted = job.arguments
        room = await self._rooms.by_number(wanted["room"])
        if room is None:
            return Progress({}, job.done, job.total, is_finished=True)
        cutoff = None if wanted["older_than"] is None else Cutoff.at(wanted["older_than"])
        upto = MAX_POSITION if cutoff is None else cutoff.position
        is_first = "after" not in job.progress
        after = job.progress.get("after", BEGINNING)
        before = wanted["before"] or [MAX_POSITION, MAX_POSITION]
        total = job.total
        if is_first:
            total = await self._db.run(count_messages, room.room_nid, before, upto, MAX_COUNTED)
        rows = await self._db.run(
            messages_between, room.room_nid, after, before, upto, MAX_EXAMINED
        )
        positions = {event_nid: position for _, position, event_nid in rows}

        def is_wanted(event_nid: int, event: Event) -> bool:
            if not wanted["with_local"] and self._rooms.local_server.is_local(event.sender):
                return False
            return cutoff is None or cutoff.has_expired(event, positions[event_nid])

        found = await self._events.load_bare(
            room.version, list(positions), self._rooms.local_server.clock
        )
        chosen = [event_nid for event_nid, event, _ in found if is_wanted(event_nid, event)]
        if chosen:
            await self._purge.purge(room, chosen, from_timeline=True)
        last = list(rows[-1][:2]) if rows else after
        is_finished = len(rows) < MAX_EXAMINED
        return Progress({"after": last}, job.done + len(rows), total, is_finished)
