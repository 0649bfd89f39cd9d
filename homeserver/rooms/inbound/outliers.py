"""Outliers: events that others refer to, whose place in the graph is not known.

They come with the state of a room, thousands at a time, or one by one as other events refer to
them, and are checked by their own auth events.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import Deferred

from homeserver.concurrency.cooperative import TimeSlice
from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import EventStatus, StoredEvent
from homeserver.rooms.inbound.event_checks import EventChecker
from homeserver.rooms.inbound.received_redactions import EarlyRedactions
from homeserver.rooms.resolution.auth_index import parts
from homeserver.rooms.room.event_rows import auth_rows, event_rows, names_of
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.batch import Row

BATCH_SIZE = 25  # by one batch of the log, for which others wait

Tell = Callable[[RoomWriter, Sequence[StoredEvent], Sequence[Row]], Deferred[None]]


class Outliers:
    """Stores outliers, for `PduReceiver`: `tell` appends events and their rows to the log."""

    def __init__(self, stores: RoomStorage, event_checker: EventChecker, tell: Tell) -> None:
        self._stores = stores
        self._event_checker = event_checker
        self._tell = tell

    async def keep(
        self, writer: RoomWriter, events: Iterable[Event]
    ) -> tuple[list[StoredEvent], Deferred[None] | None]:
        """As `PduReceiver.outliers`, whose lock is held."""
        kept: list[StoredEvent] = []
        done: Deferred[None] | None = None
        turn = TimeSlice(writer.local_server.clock)
        for part in parts(events, BATCH_SIZE):
            if done is not None:
                await done
            stored, done = await self._keep(writer, part, turn)
            kept += stored
        return kept, done

    async def _keep(
        self, writer: RoomWriter, events: Sequence[Event], turn: TimeSlice
    ) -> tuple[list[StoredEvent], Deferred[None] | None]:
        fresh: dict[str, StoredEvent] = {}
        names, redactions = self._stores.names, self._event_checker.redactions
        known = await self._event_checker.find(writer, [event.event_id for event in events])
        await names.nids({name for event in events for name in names_of(event)})
        rows: list[Row] = []
        early: list[tuple[StoredEvent, EarlyRedactions]] = []
        for event in events:
            if event.event_id in known:
                continue
            if turn.is_over:
                await turn.next()
            cited = await self._event_checker.cited(writer, event, fresh)
            status = EventStatus(is_outlier=True, rejected=cited.check(event))
            number = self._stores.log.next_position()
            stored = StoredEvent(event, number, None, EMPTY, EMPTY, status=status)
            known[event.event_id] = fresh[event.event_id] = stored
            writer.inbound.arrived(event.event_id)
            rows += event_rows(names, writer.room.room_nid, stored)
            rows += auth_rows(stored, cited.numbers)
            if status.rejected is None and (redacted := await redactions.early(writer, stored)):
                early.append((stored, redacted))
                rows += redacted.rows
        done = self._tell(writer, [*fresh.values()], rows) if fresh else None
        for stored, redacted in early:
            done = redactions.release(writer, stored, redacted) or done
        return [known[event.event_id] for event in events], done
