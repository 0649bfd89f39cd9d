"""State resolution of room versions 2 to 11 (v2) and 12 (v2.1).

Events that might remove a user's power are tried first, auth events before the events that they
authorise; then all others, in the order of the power levels that they are based on. The two
algorithms differ in the initial state and in which events take part.

Where the specification can be read in two ways, this code follows other servers, or rooms would
split: `docs/event-graph.md` names the four places.

Spec: https://spec.matrix.org/v1.19/rooms/v12/#state-resolution, and for room versions before 12
https://spec.matrix.org/v1.19/rooms/v2/#state-resolution
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from homeserver.protocol.event_kinds import is_member_event, is_state
from homeserver.protocol.event_types import JOIN_RULES, POWER_LEVELS, POWER_LEVELS_KEY
from homeserver.protocol.events import Event
from homeserver.protocol.state_resolution.auth_checks import AuthChecks, StateKey
from homeserver.protocol.state_resolution.auth_graph import (
    AuthEvents,
    auth_chain,
    auth_difference,
    events_between,
)
from homeserver.protocol.state_resolution.ordering import (
    CitedPowerLevels,
    mainline_ordered,
    power_levels_among,
    power_ordered,
)


class Conflict(msgspec.Struct, frozen=True):
    """The full conflicted set, and the parts of the auth graph that determine its order.

    `auth_events` may leave out events that are not in the set. `cited_power_levels` is called for
    the events of the set, for the power levels of the unconflicted state map, and for its own
    results; it may return None for the event in which all chains of power levels that begin there
    have met.
    """

    events: AbstractSet[str]
    auth_events: AuthEvents
    cited_power_levels: CitedPowerLevels


def conflict_between(
    unconflicted: Mapping[StateKey, str],
    conflicted: Mapping[StateKey, Sequence[str | None]],
    events: Mapping[str, Event],
    *,
    with_subgraph: bool,
) -> Conflict:
    """The conflict by its definition, over whole auth chains."""

    def auth_events(event_id: str) -> list[str]:
        return events[event_id].auth_event_ids

    full = full_conflicted_set(unconflicted, conflicted, auth_events, with_subgraph=with_subgraph)
    return Conflict(
        full, auth_events, lambda event_id: power_levels_among(auth_events(event_id), events)
    )


def resolve_v2(
    unconflicted: Mapping[StateKey, str],
    conflict: Conflict,
    events: Mapping[str, Event],
    checks: AuthChecks,
    *,
    from_empty: bool,
) -> dict[StateKey, str]:
    """The resolved entries of all keys that are not in the unconflicted state map.

    `from_empty` is the v2.1 algorithm: the iterative auth checks start from an empty state, and the
    conflicted state subgraph takes part in the conflict.
    """
    full = conflict.events

    def within(event_id: str) -> list[str]:
        return [cited for cited in conflict.auth_events(event_id) if cited in full]

    state = {} if from_empty else dict(unconflicted)

    # Steps 1 and 2
    power = {event_id for event_id in full if is_power_event(events[event_id])}
    first = power | auth_chain(power, within)
    checks.apply(state, power_ordered(first, events, conflict.auth_events, checks.sender_power))

    # Steps 3 and 4
    power_levels = state.get(POWER_LEVELS_KEY)
    rest = mainline_ordered(full - first, events, power_levels, conflict.cited_power_levels)
    checks.apply(state, rest)

    # Step 5: unconflicted entries stay, whatever the checks changed.
    return {key: event_id for key, event_id in state.items() if key not in unconflicted}


def full_conflicted_set(
    unconflicted: Mapping[StateKey, str],
    conflicted: Mapping[StateKey, Sequence[str | None]],
    auth_events: AuthEvents,
    *,
    with_subgraph: bool,
) -> set[str]:
    """The conflicted state set, the auth difference and, from v2.1 on, the events between them."""
    states = [
        [event_id for event_id in own if event_id is not None]
        for own in zip(*conflicted.values(), strict=True)
    ]
    conflicted_set = set().union(*states)
    full = conflicted_set | auth_difference(unconflicted.values(), states, auth_events)
    if with_subgraph:
        full |= events_between(conflicted_set, auth_events)
    return full


def is_power_event(event: Event) -> bool:
    """Whether an event might remove a user's ability to do something in the room.

    Power levels and join rules with a non-empty state key remove nothing, as no rule reads them.
    """
    if is_member_event(event):
        is_removal = event.content.get("membership") in ("leave", "ban")
        return is_removal and event.sender != event.state_key
    return is_state(event, POWER_LEVELS) or is_state(event, JOIN_RULES)
