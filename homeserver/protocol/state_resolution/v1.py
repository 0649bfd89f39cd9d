"""State resolution of room version 1.

Events that authorise others are resolved first, one type after the other, by adding events from the
lowest depth upwards for as long as the rules allow; all other keys get the deepest event that is
allowed.

The specification can be read in two ways in two places. All conflicts of one pass are checked
against the result of the passes before, so that the order of state keys does not matter. If no
event of the last pass is allowed, the first of its list is taken, as the other passes take theirs
unchecked.

Spec: https://spec.matrix.org/v1.19/rooms/v1/#state-resolution
"""

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from hashlib import sha1

from homeserver.protocol.event_types import JOIN_RULES, MEMBER, POWER_LEVELS
from homeserver.protocol.events import Event
from homeserver.protocol.state_resolution.auth_checks import AuthChecks, StateKey

_AUTH_TYPES = (POWER_LEVELS, JOIN_RULES, MEMBER)


def resolve_v1(
    unconflicted: Mapping[StateKey, str],
    conflicted: Mapping[StateKey, Sequence[str | None]],
    events: Mapping[str, Event],
    checks: AuthChecks,
) -> dict[StateKey, str]:
    """The resolved entries of the conflicted keys."""
    # Only later room versions treat a key that some states lack as a conflict.
    candidates = {key: set(values) - {None} for key, values in conflicted.items()}
    state = dict(unconflicted)
    lists: dict[StateKey, list[Event]] = {}
    for key, event_ids in candidates.items():
        found = [events[event_id] for event_id in event_ids if event_id is not None]
        if len(found) == 1:
            state[key] = found[0].event_id
        else:
            lists[key] = sorted(found, key=_rank)

    for event_type in _AUTH_TYPES:
        own = {key: listed for key, listed in lists.items() if key[0] == event_type}
        state.update({key: _last_allowed(listed, state, checks) for key, listed in own.items()})
    others = {key: listed for key, listed in lists.items() if key[0] not in _AUTH_TYPES}
    state.update({key: _deepest_allowed(listed, state, checks) for key, listed in others.items()})
    return {key: state[key] for key in conflicted}


def _rank(event: Event) -> tuple[int, int]:
    """Ascending depth, then descending SHA-1 of the event id."""
    digest = sha1(event.event_id.encode(), usedforsecurity=False).digest()
    return (event.depth, -int.from_bytes(digest))


def _last_allowed(
    listed: list[Event], state: MutableMapping[StateKey, str], checks: AuthChecks
) -> str:
    """The last event of the list before the first one that is not allowed."""
    key = (listed[0].type, listed[0].state_key or "")
    result = listed[0].event_id
    for event in listed[1:]:
        if not checks.is_allowed(event, ChainMap({key: result}, state)):
            break
        result = event.event_id
    return result


def _deepest_allowed(listed: list[Event], state: Mapping[StateKey, str], checks: AuthChecks) -> str:
    for event in reversed(listed):
        if checks.is_allowed(event, state):
            return event.event_id
    return listed[0].event_id
