"""A bounded part of a room's event graph as a value that can be drawn, in drawing order.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from heapq import heapify, heappop, heappush
from operator import attrgetter

import msgspec

from homeserver.protocol.event_kinds import is_member_event
from homeserver.rooms.events.stored_event import StoredEvent


class Mark(Enum):
    """The result of the checks performed on receipt; `MISSING` is an event that is not here."""

    ACCEPTED = "accepted"
    SOFT_FAILED = "soft-failed"
    REJECTED = "rejected"
    REDACTION_PENDING = "withheld"
    OUTLIER = "outlier"
    MISSING = "missing"


class GraphEvent(msgspec.Struct, frozen=True):
    """One event of a drawing. `reason` is the rule that it broke, if any.

    `is_backfilled` says that it was backfilled, `is_extremity` that it is a forward extremity.
    `topological_depth` is its depth in the graph as this server computes it, `claimed_depth` that
    in the event itself. Of a missing event only the id is known.
    """

    event_id: str
    mark: Mark
    prev_event_ids: Sequence[str] = ()
    type: str = ""
    state_key: str | None = None
    sender: str = ""
    membership: str | None = None
    topological_depth: int = 0
    claimed_depth: int = 0
    reason: str | None = None
    is_backfilled: bool = False
    is_extremity: bool = False


class RoomGraph(msgspec.Struct, frozen=True):
    """Events in drawing order: each one before all that it follows, the newest first.

    `beyond` are ids of events that are here and precede the drawn ones, but are not drawn.
    """

    events: Sequence[GraphEvent]
    beyond: Collection[str] = ()


def graph_of(
    stored: Iterable[StoredEvent], extremities: Collection[str], known: Collection[str]
) -> RoomGraph:
    """The drawing of some events. `known` are ids of other events of the room that are here."""
    newest_first = sorted(stored, key=attrgetter("log_position"), reverse=True)
    events = [_graph_event(each, extremities) for each in newest_first]
    drawn = {event.event_id for event in events}
    cited = dict.fromkeys(prev for event in events for prev in event.prev_event_ids)
    others = [event_id for event_id in cited if event_id not in drawn]
    missing = [GraphEvent(each, Mark.MISSING) for each in others if each not in known]
    beyond = [each for each in others if each in known]
    return RoomGraph(_children_first([*events, *missing]), beyond)


def _graph_event(stored: StoredEvent, extremities: Collection[str]) -> GraphEvent:
    event, status = stored.event, stored.status
    mark = Mark.ACCEPTED
    if status.rejected is not None:
        mark = Mark.REJECTED
    elif status.is_outlier:
        mark = Mark.OUTLIER
    elif status.soft_failed is not None:
        mark = Mark.SOFT_FAILED
    elif stored.is_redaction_pending:
        mark = Mark.REDACTION_PENDING
    membership = event.content.get("membership") if is_member_event(event) else None
    return GraphEvent(
        event.event_id,
        mark,
        tuple(dict.fromkeys(event.prev_event_ids)),
        event.type,
        event.state_key,
        event.sender,
        membership if isinstance(membership, str) else None,
        stored.topological_depth,
        event.depth,
        status.rejected or status.soft_failed,
        is_backfilled=stored.position is not None and stored.position < 0,
        is_extremity=event.event_id in extremities,
    )


def _children_first(events: Sequence[GraphEvent]) -> list[GraphEvent]:
    """The events so that each comes before those that it follows; else in the given order."""
    place = {event.event_id: index for index, event in enumerate(events)}
    children = dict.fromkeys(place, 0)
    for event in events:
        for prev in event.prev_event_ids:
            if prev in children:
                children[prev] += 1
    ready = [place[event_id] for event_id, count in children.items() if count == 0]
    heapify(ready)
    ordered: list[GraphEvent] = []
    while ready:
        event = events[heappop(ready)]
        ordered.append(event)
        _release(event, children, place, ready)
    # In room versions 1 and 2 servers choose event ids, so malicious ones can make a cycle.
    done = {event.event_id for event in ordered}
    return ordered + [event for event in events if event.event_id not in done]


def _release(
    event: GraphEvent, children: dict[str, int], place: Mapping[str, int], ready: list[int]
) -> None:
    for prev in event.prev_event_ids:
        if prev in children:
            children[prev] -= 1
            if children[prev] == 0:
                heappush(ready, place[prev])
