"""Messages that expire, and purges."""

from typing import Any

from homeserver.background_jobs.jobs import Jobs
from homeserver.config.settings import Settings
from homeserver.rooms.retention.event_purge import EventPurge
from homeserver.rooms.retention.history_purge import PURGE_HISTORY, HistoryPurge
from homeserver.rooms.retention.retention_jobs import DELETE_EXPIRED, RetentionJobs
from homeserver.rooms.retention.room_deletion import DELETE_ROOM, RoomDeletion
from homeserver.rooms.retention.self_destruction import SelfDestruction
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.log import Log
from homeserver.wiring.room_core import RoomCore
from homeserver.wiring.rooms import RoomServices


class Retention:
    """All objects of the area."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        log: Log,
        readers: DurableReaders,
        jobs: Jobs,
        room_core: RoomCore,
        services: RoomServices,
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
        self.deletion = RoomDeletion(
            db,
            reactor,
            log,
            rooms,
            services.forced_leaves,
            lambda: min(reader.position for reader in readers),
        )
        history_purge = HistoryPurge(db, rooms, events, purge)
        jobs.add_idempotent_kind(DELETE_EXPIRED, self.jobs.step)
        jobs.add_idempotent_kind(PURGE_HISTORY, history_purge.step)
        jobs.add_idempotent_kind(DELETE_ROOM, self.deletion.step)
        log.subscribe(self._self_destruction.apply)

    async def load(self) -> None:
        """Read what must be in memory before the first request."""
        await self.deletion.load()

    def start(self) -> None:
        """Start background work."""
        self._self_destruction.start()
        self.jobs.start()

    async def stop(self) -> None:
        """Stop background work."""
        await self.jobs.stop()
        await self._self_destruction.stop()
