"""Storing received events that no timeline of a sync shows.

They are rejected or soft-failed, a part of the history before what is known, or outliers.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred

from homeserver.rooms.events.relation_rows import rows_of_redaction
from homeserver.rooms.events.sticky_rows import sticky_rows
from homeserver.rooms.events.stored_event import ACCEPTED, StoredEvent
from homeserver.rooms.inbound.event_checks import CheckedEvent
from homeserver.rooms.room.admission import NO_EFFECT, RedactionEffect
from homeserver.rooms.room.changes import EventsStored
from homeserver.rooms.room.event_rows import backward_extremity_rows, event_rows, placing_rows
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.writer import RoomWriter
from homeserver.storage.database.batch import Row
from homeserver.storage.rooms.events import MARK_REDACTED
from homeserver.storage.rooms.graph_edges import DELETE_BACKWARD_EXTREMITY


class UnshownEvents:
    """Stores them, for `PduReceiver`."""

    def __init__(self, storage: RoomStorage) -> None:
        self._storage = storage

    def store_unaccepted(self, writer: RoomWriter, checked: CheckedEvent) -> Deferred[None]:
        """Store a rejected or soft-failed event, which changes nothing."""
        stored = checked.stored
        to_rows = placing_rows if checked.was_outlier else event_rows
        rows = to_rows(self._storage.names, writer.room.room_nid, stored)
        return self.log_stored(writer, [stored], [*rows, *checked.rows])

    def store_backfilled(self, writer: RoomWriter, checked: CheckedEvent) -> Deferred[None]:
        """Store a backfilled event: its missing previous events are now backward extremities."""
        self._storage.log.check_open()
        stored, room, effect = checked.stored, writer.room, checked.effect
        event_id, missing = stored.event.event_id, checked.backward_extremities
        depth_above = writer.fill_gap(event_id, missing)
        # It is less deep than the event that follows it, whatever depth it claims.
        ceiling = writer.extremities.topological_depth if depth_above is None else depth_above - 1
        stored.topological_depth = max(1, min(stored.topological_depth, ceiling))
        if stored.status == ACCEPTED and not effect.is_pending:
            stored.position = -stored.event_nid
        to_rows = placing_rows if checked.was_outlier else event_rows
        rows = to_rows(self._storage.names, room.room_nid, stored)
        rows += [*checked.rows, *backward_extremity_rows(room.room_nid, missing)]
        if effect.target is not None:
            rows += [MARK_REDACTED.row(effect.target.event_nid, stored.event_nid)]
            rows += rows_of_redaction(effect.target)
        if effect.waits_for is not None:
            rows += writer.pending_redactions.add(effect.waits_for, stored, is_backfilled=True)
        if depth_above is not None:
            rows.append(DELETE_BACKWARD_EXTREMITY.row(room.room_nid, event_id))
        return self.log_stored(writer, [stored], rows, missing, effect)

    def log_stored(
        self,
        writer: RoomWriter,
        events: Sequence[StoredEvent],
        rows: Sequence[Row],
        missing: Mapping[str, int] | None = None,
        effect: RedactionEffect = NO_EFFECT,
    ) -> Deferred[None]:
        """Append events and their rows to the log."""
        log = self._storage.log
        log.check_open()
        for stored in events:
            self._storage.events.add(stored)
        position, room_nid = log.next_position(), writer.room.room_nid
        entry = EventsStored(position, room_nid, events, missing or {}, effect.redacted)
        sticky = [row for stored in events for row in sticky_rows(stored, room_nid, position)]
        return log.append(entry, [*rows, *sticky])
