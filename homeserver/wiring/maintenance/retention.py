"""Messages that expire, and purges."""

from typing import Any

from homeserver.background_jobs.jobs import Jobs
from homeserver.config.settings import Settings
from homeserver.rooms.retention.event_purge import EventPurge
from homeserver.rooms.retention.history_purge import HistoryPurge
from homeserver.rooms.retention.retention_jobs import RetentionJobs
from homeserver.rooms.retention.self_destruction import SelfDestruction
from homeserver.storage.database.database import Database
from homeserver.streams.log import Log
from homeserver.wiring.room_core import RoomCore


class Retention:
    """All objects of the area."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        log: Log,
        jobs: Jobs,
        room_core: RoomCore,
    ) -> None:
        rooms, events = room_core.registry, room_core.events
        purge = EventPurge(log, rooms, events)
        self._self_destruction = SelfDestruction(db, reactor, rooms, purge)
        self.jobs = RetentionJobs(
            db,
            reactor,
            jobs,
            rooms,
            events,
            room_core.lifetimes,
            purge,
            settings.retention.purge_interval,
        )
        self._history_purge = HistoryPurge(db, jobs, rooms, events, purge)
        log.subscribe(self._self_destruction.apply)

    def start(self) -> None:
        """Start background work."""
        self._self_destruction.start()
        self.jobs.start()

    async def stop(self) -> None:
        """Stop background work."""
        await self.jobs.stop()
        await self._self_destruction.stop()
