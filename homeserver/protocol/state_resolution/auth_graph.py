"""The graph of auth events: chains, what sets them apart, and what lies between two events.

The graph is given as a function from an event id to the ids of the event's auth events. Nothing
here recurses, and every walk visits an event at most once for each state, since chains of 100,000
events are usual in old rooms.

Spec: https://spec.matrix.org/v1.19/rooms/v12/#definitions
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

AuthEvents = Callable[[str], Iterable[str]]  # event id -> ids of its auth events
T = TypeVar("T", str, int)  # what an event is named by


def auth_chain(
    event_ids: Iterable[str], auth_events: AuthEvents, known: AbstractSet[str] = frozenset()
) -> set[str]:
    """The auth events of some events, theirs, and so on; the union of the events' auth chains.

    Stops at the events of `known`, a set that holds with an event its whole chain, and leaves
    them out.
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
    `conflicted`. A full auth chain has the events of the state itself, which the text leaves open
    and other servers take for granted. So a common event is in every chain, with all that
    authorises it, and that part is walked once.
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

    # All that was reached comes from an end; what also leads to one is found walking back.
    between = set(ends)
    waiting = list(ends)
    while waiting:
        for event_id in cited_by.get(waiting.pop(), ()):
            if event_id not in between:
                between.add(event_id)
                waiting.append(event_id)
    return between
