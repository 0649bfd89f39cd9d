"""State resolution: one room state from the states after several events.

A room's event graph forks when servers send at the same time. Where the branches meet, every server
must compute the same state, whatever it received first. The algorithm is a column of the room
version.

Spec: https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from homeserver.protocol.authorization.auth_types import auth_types_for
from homeserver.protocol.event_types import CREATE_KEY, POWER_LEVELS_KEY
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion, StateResolution
from homeserver.protocol.state_resolution.auth_checks import AuthChecks, StateKey
from homeserver.protocol.state_resolution.v1 import resolve_v1
from homeserver.protocol.state_resolution.v2 import Conflict, conflict_between, resolve_v2

StateMap = Mapping[StateKey, str]  # (type, state key) -> event id
Conflicts = Mapping[StateKey, Sequence[str | None]]  # -> the event id in each state, or None


def resolve(
    version: RoomVersion,
    states: Sequence[StateMap],
    events: Mapping[str, Event],
    rejected: Collection[str] = (),
) -> dict[StateKey, str]:
    """The resolution of one or more room states.

    `events` has all events of the states and of their auth chains, and the create event, by id;
    `rejected` holds the ids of those that were rejected. Raises `KeyError` if one is missing.
    """
    unconflicted, conflicted = split(states)
    resolved = resolve_conflicts(version, unconflicted, conflicted, events, rejected)
    return {**resolved, **unconflicted}


def resolve_conflicts(
    version: RoomVersion,
    unconflicted: StateMap,
    conflicted: Conflicts,
    events: Mapping[str, Event],
    rejected: Collection[str] = (),
    conflict: Conflict | None = None,
) -> dict[StateKey, str]:
    """The resolved entries, to be added to the unconflicted state map.

    For callers that have states by their differences. Every value of `conflicted` has one event id
    for each state, in the same order. The result may lack conflicted keys, and may have keys that
    no state has.

    A caller that knows the `conflict` needs less of the room: the events that take part in it and
    their auth events, the create event, and of the unconflicted state map the entries that
    `keys_asked_for` returns.
    """
    if not conflicted:
        return {}
    checks = AuthChecks(version, events, rejected)
    if version.state_resolution is StateResolution.V1:
        return resolve_v1(unconflicted, conflicted, events, checks)
    from_empty = version.state_resolution is StateResolution.V2_1
    if conflict is None:
        conflict = conflict_between(unconflicted, conflicted, events, with_subgraph=from_empty)
    return resolve_v2(unconflicted, conflict, events, checks, from_empty=from_empty)


def keys_asked_for(version: RoomVersion, events: Iterable[Event]) -> set[StateKey]:
    """The keys of the unconflicted state map that matter if these events conflict.

    These are the keys that the events are checked against, and their own, which they do not
    replace.
    """
    keys: set[StateKey] = {CREATE_KEY, POWER_LEVELS_KEY}
    for event in events:
        keys.update(
            auth_types_for(version, event.type, event.sender, event.state_key, event.content)
        )
        if event.state_key is not None:
            keys.add((event.type, event.state_key))
    return keys


def split(
    states: Sequence[StateMap],
) -> tuple[dict[StateKey, str], dict[StateKey, list[str | None]]]:
    """The unconflicted state map, and for every other key the event of each state."""
    unconflicted: dict[StateKey, str] = {}
    conflicted: dict[StateKey, list[str | None]] = {}
    for key in dict.fromkeys(key for state in states for key in state):
        values = [state.get(key) for state in states]
        if values[0] is not None and all(value == values[0] for value in values):
            unconflicted[key] = values[0]
        else:
            conflicted[key] = values
    return unconflicted, conflicted
