"""Topological orders of received events, and which of them are new."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import encode

from homeserver.protocol.event_graph import leading_to
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS

# Room version 1, in which events contain their ids.
VERSION = ROOM_VERSIONS["1"]


def event(name: str, *prevs: str) -> Event:
    pdu = {
        "event_id": name,
        "type": "m.room.message",
        "room_id": "!room:here",
        "sender": "@alice:here",
        "content": {},
        "depth": 1,
        "origin_server_ts": 1,
        "prev_events": [[prev, {}] for prev in prevs],
        "auth_events": [],
        "hashes": {"sha256": ""},
        "signatures": {"here": {"ed25519:1": ""}},
    }
    return Event.from_json(VERSION, encode(pdu), name)


def names(events: Iterable[Event]) -> list[str]:
    return [each.event_id for each in events]


def line(count: int) -> list[Event]:
    """Events `0`, `1`, …, each of which follows the one before."""
    return [event("0"), *(event(f"{n}", f"{n - 1}") for n in range(1, count))]


def test_ancestors_of_a_known_event_are_not_new() -> None:
    """A server that sends the history from the beginning does not bring back old state."""
    events = line(6)
    assert names(leading_to(events[5], events, {"2"})) == ["3", "4"]


def test_a_gap_is_closed_by_the_event_that_was_missing_alone() -> None:
    """Earlier events stay missing; they are fetched when a user pages back so far."""
    events = line(6)
    assert names(leading_to(events[5], events, (), {"3"})) == ["3", "4"]


def test_another_way_leads_to_what_is_before_a_known_event() -> None:
    """A branch that begins before the known event is new."""
    events = [*line(4), event("branch", "1"), event("newest", "3", "branch")]
    assert names(leading_to(events[-1], events, {"3", "1", "0"})) == ["branch"]


def test_unconnected_events_are_left_out() -> None:
    """Unrequested events are not accepted by accident."""
    events = [*line(3), event("stranger")]
    assert names(leading_to(events[2], events, ())) == ["0", "1"]


def test_events_in_a_cycle_are_left_out() -> None:
    """Chosen ids can form a cycle, which is no history."""
    events = [event("a", "b"), event("b", "a")]
    assert leading_to(event("newest", "a"), events, ()) == []


@given(st.data(), st.integers(1, 12))
def test_nothing_comes_before_what_it_follows(data: st.DataObject, count: int) -> None:
    """Each event is received after those before it, whatever their order in a response."""
    events = []
    for number in range(count):
        earlier = st.sets(st.integers(0, number - 1), max_size=3) if number else st.just(set[int]())
        events.append(event(f"{number}", *(f"{n}" for n in sorted(data.draw(earlier)))))
    found = data.draw(st.permutations(events))
    known = data.draw(st.sets(st.sampled_from(names(events))))
    seen: set[str] = set()
    for each in leading_to(events[-1], found, known):
        assert each.event_id not in known | seen
        seen.add(each.event_id)
        assert not seen.intersection(names(e for e in events if each.event_id in e.prev_event_ids))
