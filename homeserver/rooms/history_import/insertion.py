"""Insertion of imported events into a room: rows and log entries, without yielding to the reactor.

An event before the start of the timeline is stored like a backfilled one. It has the depth of the
event that it comes before, and a position below zero, so that it sorts right before that one and
after all that precede it. Of several events at one place the later ones have the smaller numbers,
and so the higher positions; what is imported later before the same event sorts before all of them.

An event at the end of the room is in the timeline, with a position like any other. But it is no
forward extremity: the next event follows the same events as if it were not there, has the same
depth, and sorts after it by its position.

The state at an imported event is the current one: who may read the room now may read it.
"""

from collections.abc import Sequence

import msgspec
from twisted.internet.defer import Deferred

from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import MAX_TOPOLOGICAL_DEPTH, StoredEvent
from homeserver.rooms.room.admission import AdmittedEvent
from homeserver.rooms.room.changes import NO_CHANGES, HistoryImported
from homeserver.rooms.room.event_rows import event_rows
from homeserver.rooms.room.room_storage import unplaced_event
from homeserver.rooms.room.writer import RoomWriter
from homeserver.storage.rooms.graph_edges import INSERT_TIMELINE_GAP


class InsertionPoint(msgspec.Struct, frozen=True):
    """A place in a room's history: before all events of a depth.

    `before` is the position of the first of them in the timeline, if any is.
    """

    depth: int
    before: int | None


def next_depth(writer: RoomWriter) -> int:
    """The depth of the next event of a room."""
    return min(writer.extremities.topological_depth + 1, MAX_TOPOLOGICAL_DEPTH)


def insert_before(
    writer: RoomWriter, point: InsertionPoint, events: Sequence[Event]
) -> tuple[list[StoredEvent], Deferred[None]]:
    """Insert events, oldest first, in one commit; fires when they are durable.

    Raises `NotInMemory`, and `Unavailable` while the database is unavailable.
    """
    storage, room, root = writer.storage, writer.room, writer.extremities.root
    log = storage.log
    log.check_open()
    numbers = [log.next_event_number() for _ in events]
    position = log.next_position()
    inserted = [
        StoredEvent(
            event, number, -number, root, root, stored_at=position, topological_depth=point.depth
        )
        for event, number in zip(events, reversed(numbers), strict=True)
    ]
    rows = [row for stored in inserted for row in event_rows(storage.names, room.room_nid, stored)]
    if point.before is not None:
        rows.append(INSERT_TIMELINE_GAP.row(room.room_nid, point.before))
    for stored in inserted:
        storage.events.add(stored)
    entry = HistoryImported(position, room.room_nid, inserted, point.before)
    return inserted, log.append(entry, rows)


def append_to_timeline(
    writer: RoomWriter, events: Sequence[Event]
) -> tuple[list[StoredEvent], Deferred[None]]:
    """Append events, oldest first, to the timeline; fires when they are durable.

    They are appended together, and so committed together. Raises `NotInMemory`, and `Unavailable`
    while the database is unavailable.
    """
    log, extremities = writer.storage.log, writer.extremities
    log.check_open()
    depth, root = next_depth(writer), extremities.root
    appended = [unplaced_event(log, event) for event in events]
    for stored in appended:
        stored.state_before = stored.state_after = root
        stored.topological_depth = depth
    admitted = [
        AdmittedEvent(stored, extremities, NO_CHANGES, is_last=False, should_send=False)
        for stored in appended
    ]
    return appended, writer.admit(*admitted)
