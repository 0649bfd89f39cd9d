"""Convergence: two servers agree on a room's events and state, and no event is doubled."""

from collections import Counter
from time import monotonic
from typing import Any

from tests.support.reactor import pause, together
from tests.support.watcher import PATIENCE_SECONDS, NeverSeen, Watcher

PAUSE_SECONDS = 0.2


async def agree(room: str, one: Watcher, other: Watcher) -> list[Any]:
    """Wait until both show the same history and state; gives the history, the oldest first.

    The order of events between which there is none in the graph is each server's own.
    """
    deadline = monotonic() + PATIENCE_SECONDS
    while True:
        views = await together(_view(room, one), _view(room, other))
        if views[0] == views[1]:
            events = await one.history(room)
            return events[::-1]
        if monotonic() > deadline:
            break
        await pause(PAUSE_SECONDS)
    differences = [
        _differences(one_has, other_has) for one_has, other_has in zip(*views, strict=True)
    ]
    raise NeverSeen(f"events and state that only one of them has: {differences}")


async def agree_on_state(room: str, one: Watcher, other: Watcher) -> dict[tuple[str, str], Any]:
    """Wait until both show the same current state; gives it."""
    deadline = monotonic() + PATIENCE_SECONDS
    while True:
        states = await together(one.full_state(room), other.full_state(room))
        if _ids(states[0]) == _ids(states[1]):
            return states[0]
        if monotonic() > deadline:
            break
        await pause(PAUSE_SECONDS)
    raise NeverSeen(f"state that only one has: {_differences(_ids(states[0]), _ids(states[1]))}")


async def _view(room: str, watcher: Watcher) -> tuple[dict[Any, Any], dict[Any, Any]]:
    events, state = await together(watcher.history(room), watcher.full_state(room))
    # Counted, so that an event that one server has twice is a difference.
    counts = Counter((event["event_id"], event["type"]) for event in events)
    assert set(counts.values()) <= {1}, f"twice at {watcher.user_id}: {counts}"
    return dict(counts), _ids(state)


def _ids(state: dict[tuple[str, str], Any]) -> dict[Any, Any]:
    return {key: event["event_id"] for key, event in state.items()}


def _differences(one: dict[Any, Any], other: dict[Any, Any]) -> list[Any]:
    return sorted(one.items() ^ other.items())
