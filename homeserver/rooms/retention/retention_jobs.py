"""The deletion of messages that have expired: a job every few hours, room after room.

They are hidden from the moment at which they expire (`message_lifetimes.py`), so it does not matter
when exactly they are deleted.
"""

import msgspec
from twisted.internet.defer import Deferred

from homeserver.background_jobs.jobs import Jobs
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.history.message_lifetimes import Cutoff, MessageLifetimes
from homeserver.rooms.retention.event_purge import EventPurge
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.background_jobs import Job, Progress, last_created
from homeserver.storage.database.database import Database
from homeserver.storage.retention.retention_rooms import next_retention_room, old_messages
from homeserver.storage.rooms.events import bare_events
from homeserver.streams.positions import MAX_POSITION

DELETE_EXPIRED = "delete_expired_messages"
MAX_EXAMINED = 200  # events of a step
MAX_ROOMS = 50  # without anything to do, that a step passes
CHECK_SECONDS = 600.0
HOUR_MS = 3_600_000


class _Content(msgspec.Struct):
    content: dict[str, msgspec.Raw]


_decode = msgspec.json.Decoder(_Content).decode


class RetentionJobs:
    """Creates the jobs, and makes their steps."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        jobs: Jobs,
        rooms: RoomRegistry,
        events: EventStore,
        lifetimes: MessageLifetimes,
        purge: EventPurge,
        interval_hours: int,
    ) -> None:
        self._db = db
        self._clock = clock
        self._jobs = jobs
        self._rooms = rooms
        self._events = events
        self._lifetimes = lifetimes
        self._purge = purge
        self._interval_ms = interval_hours * HOUR_MS
        self._creating = PeriodicTask(
            clock, CHECK_SECONDS, self.create_if_due, name="the deletion of expired messages"
        )

    def start(self) -> None:
        """Begin to create jobs, if messages expire at all."""
        if self._lifetimes.limits is not None:
            self._creating.start(now=True)

    def stop(self) -> Deferred[None]:
        """Create no more."""
        return self._creating.stop()

    async def create_if_due(self) -> None:
        """Create a job if the last one was created long enough ago."""
        last = await self._db.run(last_created, DELETE_EXPIRED)
        if last is None or now_ms(self._clock) - last >= self._interval_ms:
            await self._jobs.create(DELETE_EXPIRED, {})

    async def step(self, job: Job) -> Progress:
        """Examine some messages of a room, and delete those that have expired.

        The progress is the room, and the position of the last message that was examined.
        """
        limits = self._lifetimes.limits
        if limits is None:
            return Progress({}, job.done, is_finished=True)
        room_nid, after = job.progress.get("room"), job.progress.get("after", -MAX_POSITION)
        if room_nid is None:
            last, room_nid = await self._next_room(job.progress.get("last", 0), limits.default)
            if room_nid is None:
                return Progress({"last": last}, job.done, is_finished=last is None)
        room = await self._rooms.by_number(room_nid)
        cutoff = None if room is None else await self._lifetimes.cutoff(room)
        if room is None or cutoff is None or room.partial is not None:
            return Progress({"last": room_nid}, job.done)
        examined, deleted = await self._delete(room, cutoff, after)
        if examined is None:
            return Progress({"last": room_nid}, job.done + deleted)
        return Progress({"room": room_nid, "after": examined}, job.done + deleted)

    async def _next_room(self, last: int, default: int | None) -> tuple[int | None, int | None]:
        """The next rooms after `last`: those without anything to do, and one with something, if
        there is one; (`None`, `None`) at the end.

        So a server with many idle rooms need not load them.
        """
        for _ in range(MAX_ROOMS):
            found = await self._db.run(next_retention_room, last, of_all=default is not None)
            if found is None:
                return None, None
            last, has_policy = found
            if has_policy:
                return last, last
            assert default is not None, "only then are there rooms without a policy"
            upto = Cutoff.at(max(0, now_ms(self._clock) - default)).position
            old = await self._db.run(old_messages, last, -MAX_POSITION, upto, 2)
            if len(old) > 1 or (old and await self._has_content(old[0][1])):
                return last, last
        return last, None

    async def _has_content(self, event_nid: int) -> bool:
        """Whether an event has content to delete; the newest of a room stays there without it."""
        rows = await self._db.run(bare_events, [event_nid])
        return any(_decode(json).content for _, _, json, _ in rows)

    async def _delete(self, room: Room, cutoff: Cutoff, after: int) -> tuple[int | None, int]:
        """Delete expired messages above a position; gives the last one examined, `None` at the
        end, and how many were deleted.
        """
        rows = await self._db.run(old_messages, room.room_nid, after, cutoff.position, MAX_EXAMINED)
        positions = {event_nid: position for position, event_nid in rows}
        found = await self._events.load_bare(room.version, list(positions), self._clock)
        expired = [nid for nid, event, _ in found if cutoff.has_expired(event, positions[nid])]
        if expired:
            await self._purge.purge(room, expired, from_timeline=True)
        return (rows[-1][0] if len(rows) == MAX_EXAMINED else None), len(expired)
