"""Stretches of a room's history, and what is missing along them.

History is in topological order, by (height, position). A gap, an event that others follow and that
is not here, has the height of what follows it: it is between that and whatever stands lower.

Spec: https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from homeserver.protocol.event_kinds import is_state
from homeserver.protocol.event_types import CREATE
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.room import Room
from homeserver.streams.log import MAX_POSITION
from homeserver.streams.tokens import START, Place

Depths = tuple[int, int]  # from the least to the greatest, both included


@dataclass(frozen=True, slots=True)
class TimelineSegment:
    """Part of a history: from one place to another, of events with above < position <= upto.

    What was fetched for the past has no position that says when it was seen; what stands higher
    than `past_above` belongs to a gap that was behind all that was seen up to `above`.
    """

    start: Place
    bound: Place
    above: int = -MAX_POSITION
    upto: int = MAX_POSITION
    past_above: int = MAX_POSITION


def from_memory(
    room: Room, stretch: TimelineSegment, size: int, backwards: bool
) -> list[StoredEvent] | None:
    """The next events, if the room's timeline in memory has all of them in the order of history.

    It has where each event stands deeper in the graph than all that came before it.
    """
    start, bound = stretch.start, stretch.bound
    within = [
        stored
        for stored in room.timeline
        if (here := place_of(stored)) is not None
        and stretch.above < here[1] <= stretch.upto
        and (bound < here <= start if backwards else start < here <= bound)
    ]
    found = within[::-1][:size] if backwards else within[:size]
    # A room that this server came into later has a past that no sync shows.
    is_whole = bool(room.timeline) and is_state(room.timeline[0].event, CREATE)
    if backwards:
        complete = len(found) == size or is_whole
    else:
        first = place_of(room.timeline[0]) if room.timeline else None
        complete = is_whole or (first is not None and start >= just_before(first))
    in_order = all((stored.position or 0) > room.disordered_at for stored in found)
    return found if complete and in_order else None


def gaps_reached(
    room: Room,
    stretch: TimelineSegment,
    rows: Sequence[tuple[int, int, int]],
    size: int,
    backwards: bool,
) -> Depths | None:
    """Between which depths gaps are in the way of these rows; `None` if there are none.

    Forwards only those count that have something known before them.
    """
    furthest = rows[-1][0] if len(rows) == size else stretch.bound[0]
    start = stretch.start[0]
    if not backwards and stretch.start == START:
        start = rows[0][0] if rows else MAX_POSITION
    depths = (furthest, start) if backwards else (start + 1, furthest)
    is_reached = any(
        depths[0] <= depth <= depths[1] for depth in room.backward_extremities.values()
    )
    return depths if is_reached else None


def is_gap_between(gaps: Sequence[int], one: int, other: int) -> bool:
    """Whether one of the gaps, given by their heights in order, is between two others."""
    low, high = sorted((one, other))
    return bisect_right(gaps, low) < bisect_right(gaps, high)


def split_at_gaps(
    room: Room, start: Place, events: Iterable[StoredEvent]
) -> Iterator[tuple[bool, list[StoredEvent]]]:
    """The events of a walk from a place on, in runs without a gap.

    Each comes with whether a gap is before it; the first may be empty.
    """
    gaps = sorted(room.backward_extremities.values())
    run: list[StoredEvent] = []
    height, is_behind_gap = start[0], False
    for stored in events:
        if is_gap_between(gaps, height, stored.topological_depth):
            yield is_behind_gap, run
            run, is_behind_gap = [], True
        run.append(stored)
        height = stored.topological_depth
    yield is_behind_gap, run


def place_of(stored: StoredEvent) -> Place | None:
    """Where an event stands in the history; `None` for one that no client sees."""
    return None if stored.position is None else (stored.topological_depth, stored.position)


def just_before(place: Place) -> Place:
    """The place before an event that stands at one: no two events have the same position."""
    return place[0], place[1] - 1


def behind(stored: StoredEvent, backwards: bool) -> Place:
    """The place at which a walk goes on that has come past an event."""
    place = stored.topological_depth, stored.position or 0
    return just_before(place) if backwards else place
