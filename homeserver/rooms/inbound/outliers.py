"""Outliers: events that others refer to, whose place in the graph is not known.

They are part of a fetched state, thousands at a time, or are fetched one by one because other
events refer to them. They are checked by their own auth events.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import Deferred

from homeserver.concurrency.cooperative import TimeSlice
from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import EventStatus, StoredEvent
from homeserver.rooms.inbound.event_checks import EventChecker
from homeserver.rooms.inbound.received_redactions import TargetRedactions
from homeserver.rooms.resolution.auth_index import parts
from homeserver.rooms.room.event_rows import auth_rows, event_rows, names_of
from homeserver.rooms.room.room_storage import RoomStorage, unplaced_event
from homeserver.rooms.room.writer import RoomWriter
from homeserver.storage.database.batch import Row

BATCH_SIZE = 25  # events in one batch of the log, which other writers wait for

LogStored = Callable[[RoomWriter, Sequence[StoredEvent], Sequence[Row]], Deferred[None]]


class Outliers:
    """Stores outliers, for `PduReceiver`: `log_stored` appends events and their rows to the log."""

    def __init__(
        self, storage: RoomStorage, event_checker: EventChecker, log_stored: LogStored
    ) -> None:
        self._storage = storage
        self._event_checker = event_checker
        self._log_stored = log_stored

    async def store(
        self, writer: RoomWriter, events: Iterable[Event]
    ) -> tuple[list[StoredEvent], Deferred[None] | None]:
        """As `PduReceiver.outliers`, which holds the room's lock."""
        found: list[StoredEvent] = []
        done: Deferred[None] | None = None
        time_slice = TimeSlice(writer.local_server.clock)
        for part in parts(events, BATCH_SIZE):
            if done is not None:
                await done
            stored, done = await self._store_part(writer, part, time_slice)
            found += stored
        return found, done

    async def _store_part(
        self, writer: RoomWriter, events: Sequence[Event], time_slice: TimeSlice
    ) -> tuple[list[StoredEvent], Deferred[None] | None]:
        fresh: dict[str, StoredEvent] = {}
        names, redactions = self._storage.names, self._event_checker.redactions
        known = await self._event_checker.find(writer, [event.event_id for event in events])
        await names.nids({name for event in events for name in names_of(event)})
        rows: list[Row] = []
        pending: list[tuple[StoredEvent, TargetRedactions]] = []
        for event in events:
            if event.event_id in known:
                continue
            if time_slice.is_over:
                await time_slice.next()
            cited = await self._event_checker.cited(writer, event, fresh)
            status = EventStatus(is_outlier=True, rejected=cited.check(event))
            stored = unplaced_event(self._storage.log, event, status)
            known[event.event_id] = fresh[event.event_id] = stored
            writer.inbound.arrived(event.event_id)
            rows += event_rows(names, writer.room.room_nid, stored)
            rows += auth_rows(stored, cited.numbers)
            if status.rejected is None and (
                redacted := await redactions.pending_of(writer, stored)
            ):
                pending.append((stored, redacted))
                rows += redacted.rows
        done = self._log_stored(writer, [*fresh.values()], rows) if fresh else None
        for stored, redacted in pending:
            done = redactions.release(writer, stored, redacted) or done
        return [known[event.event_id] for event in events], done
