"""Segments of a room's history, and the backward extremities along them.

History is in topological order, by (topological depth, position). A backward extremity, a missing
event that others follow, has the depth of the event that follows it: it is between that and all
less deep events.

Spec: https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from homeserver.protocol.event_kinds import is_state
from homeserver.protocol.event_types import CREATE
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.room import Room
from homeserver.streams.positions import MAX_POSITION
from homeserver.streams.tokens import START, Place

Depths = tuple[int, int]  # from the least to the greatest, both included


class TimelineSegment(msgspec.Struct, frozen=True):
    """Part of a history: from one place to another, of events with above < position <= upto.

    The position of a backfilled event does not tell when it was seen; events deeper than
    `past_above` belong to a gap that was after all that was seen up to `above`.
    """

    start: Place
    bound: Place
    above: int = -MAX_POSITION
    upto: int = MAX_POSITION
    past_above: int = MAX_POSITION


def from_memory(
    room: Room, segment: TimelineSegment, size: int, backwards: bool
) -> list[StoredEvent] | None:
    """The next events, if the room's timeline in memory has all of them in the order of history.

    That is so where each event is deeper in the graph than all that came before it.
    """
    start, bound = segment.start, segment.bound
    within = [
        stored
        for stored in room.timeline
        if (here := place_of(stored)) is not None
        and segment.above < here[1] <= segment.upto
        and (bound < here <= start if backwards else start < here <= bound)
    ]
    found = within[::-1][:size] if backwards else within[:size]
    # The history of a room from before this server's join is not in the timeline.
    has_all = bool(room.timeline) and is_state(room.timeline[0].event, CREATE)
    if backwards:
        complete = len(found) == size or has_all
    else:
        first = place_of(room.timeline[0]) if room.timeline else None
        complete = has_all or (first is not None and start >= just_before(first))
    in_order = all((stored.position or 0) > room.disordered_at for stored in found)
    # Between two events of the timeline may be others that are not in memory.
    is_all = bool(found) or not room.disordered_at
    return found if complete and in_order and is_all else None


def extremities_reached(
    room: Room,
    segment: TimelineSegment,
    rows: Sequence[tuple[int, int, int]],
    size: int,
    backwards: bool,
) -> Depths | None:
    """The depths between which backward extremities affect these rows; `None` if there are none.

    Forwards only those count that have known events before them.
    """
    furthest = rows[-1][0] if len(rows) == size else segment.bound[0]
    start = segment.start[0]
    if not backwards and segment.start == START:
        start = rows[0][0] if rows else MAX_POSITION
    depths = (furthest, start) if backwards else (start + 1, furthest)
    is_reached = any(
        depths[0] <= depth <= depths[1] for depth in room.backward_extremities.values()
    )
    return depths if is_reached else None


def is_extremity_between(depths: Sequence[int], one: int, other: int) -> bool:
    """Whether a backward extremity, of the depths given in order, is between two other depths."""
    low, high = sorted((one, other))
    return bisect_right(depths, low) < bisect_right(depths, high)


def split_at_extremities(
    room: Room, start: Place, events: Iterable[StoredEvent]
) -> Iterator[tuple[bool, list[StoredEvent]]]:
    """The events of a walk from a place on, in runs without a gap.

    Each run comes with whether a gap is before it; the first may be empty.
    """
    depths = sorted(room.backward_extremities.values())
    run: list[StoredEvent] = []
    depth, is_after_gap = start[0], False
    for stored in events:
        if is_extremity_between(depths, depth, stored.topological_depth):
            yield is_after_gap, run
            run, is_after_gap = [], True
        run.append(stored)
        depth = stored.topological_depth
    yield is_after_gap, run


def place_of(stored: StoredEvent) -> Place | None:
    """The place of an event in the history; `None` for one that no client sees."""
    return None if stored.position is None else (stored.topological_depth, stored.position)


def just_before(place: Place) -> Place:
    """The place before an event at a place: no two events have the same position."""
    return place[0], place[1] - 1


def place_beyond(stored: StoredEvent, backwards: bool) -> Place:
    """The place from which a walk continues that has passed an event."""
    place = stored.topological_depth, stored.position or 0
    return just_before(place) if backwards else place


def newest_in_memory(room: Room, position: int) -> StoredEvent | None:
    """The newest event up to a position, if it is in memory."""
    for stored in reversed(room.timeline):
        if (stored.position or 0) <= position:
            return stored
    return None
