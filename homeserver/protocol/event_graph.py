"""Topological orders of received events.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Callable, Collection, Iterable

from homeserver.protocol.event_types import CREATE
from homeserver.protocol.events import Event


def in_auth_order(events: Iterable[Event]) -> list[Event]:
    """Sort events so that each comes after those of them that are its auth events."""
    return _in_order(events, _authorities)


def in_graph_order(events: Iterable[Event]) -> list[Event]:
    """Sort events so that each comes after those of them that are its prev events."""
    return _in_order(events, lambda event: event.prev_event_ids)


def authorised_among(
    events: Iterable[Event], known: Collection[str]
) -> tuple[list[Event], set[str]]:
    """The events with complete auth chains, in the given order, and the ids of the missing auth
    events.

    An event has one if each of its auth events is known, or comes before it and has one too.
    """
    kept: dict[str, Event] = {}
    fallen: set[str] = set()
    missing: set[str] = set()
    for event in events:
        lacking = [each for each in _authorities(event) if each not in kept and each not in known]
        if lacking:
            fallen.add(event.event_id)
            missing.update(each for each in lacking if each not in fallen)
        else:
            kept[event.event_id] = event
    return list(kept.values()), missing


def authorities_beyond(events: Iterable[Event]) -> set[str]:
    """The ids of all auth events of the events that are not among the events."""
    cited: set[str] = set()
    given: set[str] = set()
    for event in events:
        cited.update(_authorities(event))
        given.add(event.event_id)
    return cited - given


def leading_to(
    event: Event, found: Iterable[Event], known: Collection[str], last: Collection[str] = ()
) -> list[Event]:
    """The found events between the known events and an event, in topological order.

    Ancestors of known events are left out, and so are ancestors of the events `last`, unless
    another path leads to them.
    """
    by_id = {each.event_id: each for each in found}
    led: dict[str, Event] = {}
    waiting = list(event.prev_event_ids)
    while waiting:
        event_id = waiting.pop()
        each = by_id.get(event_id)
        if each is None or event_id in led or event_id in known or event_id == event.event_id:
            continue
        led[event_id] = each
        if event_id not in last:
            waiting += each.prev_event_ids
    return in_graph_order(led.values())


def _authorities(event: Event) -> list[str]:
    if event.version.room_id_is_create_hash and event.type != CREATE:
        return ["$" + event.room_id[1:], *event.auth_event_ids]
    return event.auth_event_ids


def _in_order(events: Iterable[Event], before: Callable[[Event], list[str]]) -> list[Event]:
    """Kahn's algorithm. Ids may be chosen by servers: events that form a cycle are left out."""
    by_id = {event.event_id: event for event in events}
    waiting_for: dict[str, int] = {}
    followers: dict[str, list[str]] = {}
    for event_id, event in by_id.items():
        cited = {each for each in before(event) if each in by_id}
        waiting_for[event_id] = len(cited)
        for each in cited:
            followers.setdefault(each, []).append(event_id)
    free = [event_id for event_id, count in waiting_for.items() if not count]
    ordered: list[Event] = []
    while free:
        event_id = free.pop()
        ordered.append(by_id[event_id])
        for follower in followers.get(event_id, ()):
            waiting_for[follower] -= 1
            if not waiting_for[follower]:
                free.append(follower)
    return ordered
