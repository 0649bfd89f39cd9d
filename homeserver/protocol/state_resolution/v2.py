"""State resolution of room versions 2 to 11 (v2) and 12 (v2.1).

Events that might take someone's power away are tried first, what authorises before what is
authorised; then everything else, in the order of the power levels that it is based on. The two
algorithms differ in where the tries start and in which events take part.

Spec: https://spec.matrix.org/v1.19/rooms/v12/#state-resolution, and for room versions before 12
https://spec.matrix.org/v1.19/rooms/v2/#state-resolution
"""

from collections.abc import Mapping, Sequence

from homeserver.protocol.events import Event
from homeserver.protocol.state_resolution.auth_checks import AuthChecks, StateKey
from homeserver.protocol.state_resolution.auth_graph import (
    AuthEvents,
    auth_chain,
    auth_difference,
    events_between,
)
from homeserver.protocol.state_resolution.ordering import mainline_ordered, power_ordered

_POWER_LEVELS = ("m.room.power_levels", "")


def resolve_v2(
    unconflicted: Mapping[StateKey, str],
    conflicted: Mapping[StateKey, Sequence[str | None]],
    events: Mapping[str, Event],
    auth_events: AuthEvents,
    checks: AuthChecks,
    *,
    from_empty: bool,
) -> dict[StateKey, str]:
    """The resolved entries of all keys that are not in the unconflicted state map.

    `from_empty` is the v2.1 algorithm: the iterative auth checks start from an empty state, and the
    conflicted state subgraph takes part.
    """
    full = full_conflicted_set(unconflicted, conflicted, auth_events, with_subgraph=from_empty)
    state = {} if from_empty else dict(unconflicted)

    # Steps 1 and 2
    power = {event_id for event_id in full if is_power_event(events[event_id])}
    first = power | (auth_chain(power, auth_events) & full)
    checks.apply(state, power_ordered(first, events, auth_events, checks.sender_power))

    # Steps 3 and 4
    checks.apply(state, mainline_ordered(full - first, events, state.get(_POWER_LEVELS)))

    # Step 5: what was unconflicted stays, whatever the checks made of it.
    return {key: event_id for key, event_id in state.items() if key not in unconflicted}


def full_conflicted_set(
    unconflicted: Mapping[StateKey, str],
    conflicted: Mapping[StateKey, Sequence[str | None]],
    auth_events: AuthEvents,
    *,
    with_subgraph: bool,
) -> set[str]:
    """The conflicted state set, the auth difference and, from v2.1, what lies between them."""
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
    """Whether an event might remove someone's ability to do something in the room."""
    if event.type == "m.room.member":
        is_removal = event.content.get("membership") in ("leave", "ban")
        return is_removal and event.sender != event.state_key
    return event.type in ("m.room.power_levels", "m.room.join_rules")
