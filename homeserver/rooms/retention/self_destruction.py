"""Self-destructing messages: their content is deleted at the time that their sender chose.

The time is in a table, with the event, so it survives a restart; messages that wait cost nothing.
A message whose time has passed is shown as if it had been redacted, without a redaction.

Proposal: https://github.com/matrix-org/matrix-spec-proposals/pull/2228
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from homeserver.concurrency.clock import Clock
from homeserver.protocol.retention.message_expiry import expiry_of
from homeserver.rooms.retention.event_purge import EventPurge
from homeserver.rooms.room.changes import EventAppended, EventsStored, HistoryImported
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.storage.database.database import Database
from homeserver.storage.retention.expiring_events import (
    delete_expiring_events,
    earliest_expiry,
    expired_events,
)
from homeserver.streams.durable_timer import DurableTimer

MAX_EXPIRED = 500  # events of one round


class SelfDestruction:
    """Deletes the content of messages in time. Subscribe `apply` to the log."""

    def __init__(self, db: Database, clock: Clock, rooms: RoomRegistry, purge: EventPurge) -> None:
        self._db = db
        self._rooms = rooms
        self._purge = purge
        self._timer = DurableTimer(
            db, clock, earliest_expiry, self._expire, name="the expiry of messages"
        )

    def start(self) -> None:
        """Delete what has expired meanwhile, and wait for the rest."""
        self._timer.start()

    async def stop(self) -> None:
        """Delete nothing more."""
        await self._timer.stop()

    def apply(self, entries: Sequence[Any]) -> None:
        """Notice messages that expire (called by the log)."""
        for entry in entries:
            if isinstance(entry, EventAppended):
                events: Sequence[Any] = (entry.stored,)
            elif isinstance(entry, (EventsStored, HistoryImported)):
                events = entry.events
            else:
                continue
            for stored in events:
                due = expiry_of(stored.event)
                if due is not None:
                    self._timer.notice(due)

    async def _expire(self, now_ms: int) -> None:
        by_room: dict[int, list[int]] = defaultdict(list)
        for room_nid, event_nid in await self._db.run(expired_events, now_ms, MAX_EXPIRED):
            by_room[room_nid].append(event_nid)
        for room_nid, event_nids in by_room.items():
            room = await self._rooms.by_number(room_nid)
            if room is not None:
                await self._purge.purge(room, event_nids, from_timeline=False)
            # Those that could not be purged, such as state, must not be due without end.
            await self._db.run(delete_expiring_events, event_nids)
