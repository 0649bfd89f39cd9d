"""The graph of auth events: chains, their differences, and the paths between events.

The graph is a function from an event id to the ids of the event's auth events. Nothing here
recurses, and every walk visits an event at most once for each state, since chains of 100,000 events
are usual in old rooms.

Spec: https://spec.matrix.org/v1.19/rooms/v12/#definitions
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

AuthEvents = Callable[[str], Iterable[str]]  # event id -> ids of its auth events
T = TypeVar("T", str, int)  # the key of an event


def auth_chain(
    event_ids: Iterable[str], auth_events: AuthEvents, known: AbstractSet[str] = frozenset()
) -> set[str]:
    """The union of the auth chains of some events.

    Stops at the events of `known`, a set that contains the whole chain of each of its events, and
    leaves them out.
    """
    chain: set[str] = set()
    waiting = list(event_ids)
    while waiting:
        for auth_event in auth_events(waiting.pop()):
            if auth_event not in chain and auth_event not in known:
                chain.add(auth_event)
                waiting.append(auth_event)
    return chain


def auth_difference(
    unconflicted: Iterable[str], conflicted: Sequence[Iterable[str]], auth_events: AuthEvents
) -> set[str]:
    """The events that are in the full auth chain of some state, but not of every one.

    A state is given in two parts: the events that all states have in common, and its own of
    `conflicted`. A full auth chain includes the events of the state itself, which the specification
    leaves open and other servers assume. So a common event is in every chain, with its own auth
    chain, and that part is walked once.
    """
    if len(conflicted) < 2:
        return set()
    common = set(unconflicted)
    common |= auth_chain(common, auth_events)
    chains = [(set(own) | auth_chain(own, auth_events, common)) - common for own in conflicted]
    return set().union(*chains) - chains[0].intersection(*chains[1:])


def events_between(ends: Collection[T], auth_events: Callable[[T], Iterable[T]]) -> set[T]:
    """The events on all paths that lead from one of the `ends` to another, and the ends.

    For the conflicted state set this is the conflicted state subgraph, but for conflicted events
    that no path connects to another, which are in the full conflicted set anyway.
    """
    cited_by: dict[T, list[T]] = {}
    reached = set(ends)
    waiting = list(ends)
    while waiting:
        event_id = waiting.pop()
        for auth_event in auth_events(event_id):
            cited_by.setdefault(auth_event, []).append(event_id)
            if auth_event not in reached:
                reached.add(auth_event)
                waiting.append(auth_event)

    # All events reached come from an end; those that also lead to one are found by walking back.
    between = set(ends)
    waiting = list(ends)
    while waiting:
        for event_id in cited_by.get(waiting.pop(), ()):
            if event_id not in between:
                between.add(event_id)
                waiting.append(event_id)
    return between
