"""Sticky events: for how long one sticks, and what says so in all room versions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.client_events import client_event
from homeserver.protocol.events import Event, build_event
from homeserver.protocol.proposals.sticky_events import (
    MAX_DURATION_MS,
    STICKY_NAMES,
    is_valid_duration,
    sticky_duration,
    sticky_duration_of,
    sticky_until,
)
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.protocol.signing.signatures import SigningKey
from tests.protocol.json_values import versions

KEY = SigningKey.from_seed("1", b"\x01" * 32)
names = st.sampled_from(STICKY_NAMES)
durations = st.integers(0, 2**53 - 1)
times = st.integers(0, 2**53 - 1)
malformed = st.one_of(
    st.none(),
    st.booleans(),
    st.text(),
    st.floats(),
    st.integers(max_value=-1),
    st.lists(st.integers()),
).map(lambda value: {"duration_ms": value}) | st.one_of(st.none(), st.integers(), st.text())


def sticky(version: RoomVersion, member: Any, name: str, sent_ms: int = 0) -> Event:
    """A message that says for how long it sticks."""
    return build_event(
        version,
        room_id="!x:domain",
        type="m.room.message",
        sender="@a:domain",
        content={"body": "hello"},
        prev_events=(),
        auth_events=(),
        depth=1,
        origin_server_ts=sent_ms,
        members={name: member},
        server_name="domain",
        key=KEY,
    )


@given(versions, names, durations, times, times)
def test_an_event_sticks_from_when_it_was_sent_or_received(
    version: RoomVersion, name: str, duration: int, sent_ms: int, received_ms: int
) -> None:
    """A sender gains nothing by a clock that is ahead, nor by more than an hour."""
    event = sticky(version, {"duration_ms": duration}, name, sent_ms)

    until = sticky_until(event, received_ms)

    assert until is not None
    begin = min(sent_ms, received_ms)
    assert begin <= until <= begin + MAX_DURATION_MS
    assert until - begin == duration or (duration > MAX_DURATION_MS == until - begin)


@given(versions, names, durations)
def test_all_servers_and_clients_are_told(version: RoomVersion, name: str, duration: int) -> None:
    """The member is signed with the event; clients find it under both names."""
    event = sticky(version, {"duration_ms": duration}, name)

    received = Event.from_pdu(version, event.pdu)
    shown = client_event(received, room_id=True, unsigned={})

    assert received == event
    for each in STICKY_NAMES:
        assert shown[each] == {"duration_ms": min(duration, MAX_DURATION_MS)}


@given(versions, names, durations)
def test_a_redacted_event_does_not_stick(version: RoomVersion, name: str, duration: int) -> None:
    """No room version protects the member."""
    redacted = sticky(version, {"duration_ms": duration}, name).redacted()

    assert sticky_until(redacted, 0) is None
    assert not {*STICKY_NAMES} & client_event(redacted, room_id=True, unsigned={}).keys()


@given(names, malformed)
def test_what_is_malformed_does_not_stick(name: str, member: Any) -> None:
    """Clients do not get it either."""
    assert sticky_duration({name: member}) is None


@given(versions, names, durations)
def test_what_sticks_is_found_without_decoding_the_event(
    version: RoomVersion, name: str, duration: int
) -> None:
    """Every event that is sent is looked at, and hardly any sticks."""
    made = sticky(version, {"duration_ms": duration}, name)
    similar = sticky(version, {"duration_ms": duration}, "not_" + name)

    for event in (made, similar):
        stored = Event.from_json(version, event.json, event.event_id)
        assert sticky_duration_of(stored) == sticky_duration(event.pdu)


@given(durations)
def test_one_of_two_names_is_enough(duration: int) -> None:
    """Whatever the other one says."""
    first, second = STICKY_NAMES

    assert sticky_duration({first: {}, second: {"duration_ms": duration}}) is not None
    assert sticky_duration({first: {"duration_ms": 1}, second: {"duration_ms": duration}}) == 1


@pytest.mark.parametrize("duration", [-1, MAX_DURATION_MS + 1, True, 1.5, "1", None])
def test_clients_may_not_ask_for_everything(duration: Any) -> None:
    """An hour is the longest that the proposal has."""
    assert not is_valid_duration(duration)
    assert is_valid_duration(0)
    assert is_valid_duration(MAX_DURATION_MS)


def test_other_events_are_as_before() -> None:
    """The member is no part of them."""
    assert sticky_duration(sticky(ROOM_VERSIONS["12"], {}, "other").pdu) is None
