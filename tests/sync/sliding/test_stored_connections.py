"""The stored form of connections."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.sliding_sync.room_config import RequiredState, RoomConfig, StateElement
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sliding.connection import (
    LIVE,
    NEVER,
    ConnectionState,
    OfferedState,
    SentRoom,
    SlidingConnection,
)
from homeserver.sync.sliding.stored_connections import decode_connection, encode_connection

elements = st.builds(StateElement, st.none() | st.text(), st.none() | st.text())
configs = st.builds(
    RoomConfig,
    st.integers(0, 100),
    st.tuples(
        st.builds(RequiredState, st.frozensets(elements), st.frozensets(elements), st.booleans())
    ),
)
positions = st.sampled_from([NEVER, LIVE]) | st.integers(1, 2**60)
sent_rooms = st.builds(
    SentRoom,
    positions,
    positions,
    positions,
    positions,
    st.integers(0, 100),
    st.booleans(),
    configs,
)
tokens = st.builds(
    SyncToken, positions, st.lists(st.tuples(positions, positions)).map(tuple), st.none()
)
rooms = st.dictionaries(st.integers(1, 2**31 - 1), sent_rooms)
states = st.builds(
    ConnectionState, st.none() | st.text(), st.none() | tokens, rooms, st.none() | tokens, tokens
)
offers = st.none() | st.builds(OfferedState, tokens, rooms, st.none() | tokens, st.none() | tokens)


@given(states, offers, st.integers(0, 2**53))
def test_connection_is_the_same_after_a_restart(
    state: ConnectionState, offered: OfferedState | None, number: int
) -> None:
    """A client goes on where it was."""
    connection = SlidingConnection(number, state)
    connection.offered = offered
    connection.offered_pos = None if offered is None else "s1-2"

    restored = decode_connection(encode_connection(connection))

    assert restored is not None
    assert restored.number == number
    assert restored.state == state
    assert restored.offered == offered
    assert restored.offered_pos == connection.offered_pos


def test_large_connection_is_stored_in_few_bytes() -> None:
    """An account in thousands of rooms costs little with each save."""
    sent = SentRoom(LIVE, LIVE, LIVE, LIVE, 20, False, RoomConfig(20))
    state = ConnectionState("s1-1", SyncToken(1), {nid * 7: sent for nid in range(1, 2001)})

    assert len(encode_connection(SlidingConnection(1, state))) < 3_000


def test_unknown_form_is_not_taken_for_a_connection() -> None:
    """A later version may store something else; then clients begin again."""
    stored = msgspec.msgpack.decode(encode_connection(SlidingConnection(1)))

    assert decode_connection(msgspec.msgpack.encode([stored[0] + 1, *stored[1:]])) is None
    assert decode_connection(b"garbage") is None
