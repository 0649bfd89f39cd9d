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
    SentProfiles,
    SentRoom,
    SlidingConnection,
)
from homeserver.sync.sliding.stored_connections import ConnectionDecoder, encode_connection

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
    positions,
)
tokens = st.builds(
    SyncToken,
    positions,
    st.lists(st.tuples(positions, positions)).map(tuple),
    st.none(),
    st.none(),  # the client holds the one of its sticky events
)
rooms = st.dictionaries(st.integers(1, 2**31 - 1), sent_rooms)
profiles = st.none() | st.builds(SentProfiles, tokens, st.none() | st.frozensets(st.text()))
states = st.builds(
    ConnectionState,
    st.none() | st.text(),
    st.none() | tokens,
    rooms,
    st.none() | tokens,
    tokens,
    profiles=profiles,
)
offers = st.none() | st.builds(
    OfferedState, tokens, rooms, st.none() | tokens, st.none() | tokens, profiles=profiles
)


@given(states, offers, st.integers(0, 2**53))
def test_connection_is_the_same_after_a_restart(
    state: ConnectionState, offered: OfferedState | None, number: int
) -> None:
    """A client goes on where it was."""
    connection = SlidingConnection(number, state)
    connection.offered = offered
    connection.offered_pos = None if offered is None else "s1-2"

    restored = ConnectionDecoder().decode(encode_connection(connection))

    assert restored is not None
    assert restored.number == number
    assert restored.state == state
    assert restored.offered == offered
    assert restored.offered_pos == connection.offered_pos


def test_large_connection_is_stored_in_few_bytes() -> None:
    """An account in thousands of rooms costs little with each save."""
    sent = SentRoom(LIVE, LIVE, LIVE, LIVE, 20, False, RoomConfig(20), LIVE)
    state = ConnectionState("s1-1", SyncToken(1), {nid * 7: sent for nid in range(1, 2001)})

    assert len(encode_connection(SlidingConnection(1, state))) < 3_000


def test_connection_of_before_the_last_extension_is_still_known() -> None:
    """Clients need not begin again after an upgrade."""
    sent = SentRoom(LIVE, LIVE, LIVE, LIVE, 20, False, RoomConfig(20))
    connection = SlidingConnection(1, ConnectionState("s1-1", SyncToken(1), {7: sent}))
    version, number, room_configs, state, offered = msgspec.msgpack.decode(
        encode_connection(connection)
    )

    earlier = msgspec.msgpack.encode([version, number, room_configs, state[:6], offered])
    restored = ConnectionDecoder().decode(earlier)

    assert restored is not None
    assert restored.state == connection.state


def test_unknown_form_is_not_taken_for_a_connection() -> None:
    """A later version may store something else; then clients begin again."""
    stored = msgspec.msgpack.decode(encode_connection(SlidingConnection(1)))

    assert ConnectionDecoder().decode(msgspec.msgpack.encode([stored[0] + 1, *stored[1:]])) is None
    assert ConnectionDecoder().decode(b"garbage") is None
