"""The two orders in which state resolution tries events.

Spec: https://spec.matrix.org/v1.19/rooms/v12/#definitions
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from heapq import heapify, heappop, heappush

from homeserver.protocol.event_kinds import is_state
from homeserver.protocol.event_types import POWER_LEVELS
from homeserver.protocol.events import Event
from homeserver.protocol.state_resolution.auth_graph import AuthEvents

CitedPowerLevels = Callable[[str], str | None]  # event id -> its power levels auth event


def power_ordered(
    event_ids: Collection[str],
    events: Mapping[str, Event],
    auth_events: AuthEvents,
    sender_power: Callable[[Event], int],
) -> list[Event]:
    """Reverse topological power ordering: auth events come first, then senders with more power.

    The lexicographically smallest topological order, by Kahn's algorithm. An event comes after
    those of the set that are its auth events. One that authorises it only through events outside
    the set may come later: the order is that of the set's own graph, as on other servers.
    """
    missing: dict[str, int] = {}  # the number of auth events of an event that are not ordered yet
    cited_by: dict[str, list[str]] = {}
    wanted = set(event_ids)
    for event_id in wanted:
        within = wanted.intersection(auth_events(event_id))
        missing[event_id] = len(within)
        for auth_event in within:
            cited_by.setdefault(auth_event, []).append(event_id)

    def rank(event_id: str) -> tuple[int, int, str]:
        event = events[event_id]
        return (-sender_power(event), event.origin_server_ts, event_id)

    free = [rank(event_id) for event_id, count in missing.items() if not count]
    heapify(free)
    ordered: list[Event] = []
    while free:
        event_id = heappop(free)[2]
        ordered.append(events[event_id])
        for later in cited_by.get(event_id, ()):
            missing[later] -= 1
            if not missing[later]:
                heappush(free, rank(later))
    return ordered


def mainline_ordered(
    event_ids: Iterable[str],
    events: Mapping[str, Event],
    power_levels: str | None,
    cited_power_levels: CitedPowerLevels,
) -> list[Event]:
    """Mainline ordering based on a power levels event: oldest power levels first.

    `power_levels` is the id of P, or None if the state has none: then no event has a mainline
    position, and the time decides.
    """
    positions: dict[str, float] = {}
    place: str | None = power_levels
    while place is not None and place not in positions:
        positions[place] = len(positions)
        place = cited_power_levels(place)

    def position(event: Event) -> float:
        passed: list[str] = []
        place = cited_power_levels(event.event_id)
        while place is not None and place not in positions:
            # Stored, so that no segment beside the mainline is walked twice.
            positions[place] = math.inf
            passed.append(place)
            place = cited_power_levels(place)
        found = math.inf if place is None else positions[place]
        positions.update(dict.fromkeys(passed, found))
        return found

    def rank(event: Event) -> tuple[float, int, str]:
        return (-position(event), event.origin_server_ts, event.event_id)

    return sorted((events[event_id] for event_id in event_ids), key=rank)


def power_levels_among(auth_event_ids: Iterable[str], events: Mapping[str, Event]) -> str | None:
    """The power levels event among the auth events of an event."""
    for event_id in auth_event_ids:
        auth_event = events[event_id]
        if is_state(auth_event, POWER_LEVELS):
            return event_id
    return None
