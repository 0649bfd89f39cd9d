"""Connections: what is kept of earlier requests is bounded."""

from homeserver.protocol.sliding_sync.request import RequestBody
from homeserver.protocol.sliding_sync.room_config import RequiredState, RoomConfig
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sliding.connection import (
    LIVE,
    MAX_ASKED_FOR,
    NO_CONFIG,
    ConnectionState,
    ListedScope,
    ScopedRoom,
    SentRoom,
    SlidingConnection,
)

CONFIG = RoomConfig(1, (RequiredState(lazy_members=True),))


def scope(size: int, *nids: int) -> ListedScope:
    """The scope of a new request of so many bytes that asks for these rooms."""
    return ListedScope(RequestBody(size=size), 1, {}, dict.fromkeys(nids, ScopedRoom(CONFIG)), True)


def test_configs_of_earlier_requests_are_forgotten() -> None:
    """A client that asks for something else each time cannot fill the memory."""
    sent = SentRoom(LIVE, limit=1, config=CONFIG)
    state = ConnectionState("s1-1", SyncToken(1), {1: sent, 2: sent})
    connection = SlidingConnection(1, state)
    empty = connection.size

    for _ in range(10):
        connection.use_scope(scope(MAX_ASKED_FOR // 4, 2))

    assert state.rooms[1].config is NO_CONFIG
    assert state.rooms[1].upto == LIVE
    assert state.rooms[2].config is CONFIG
    assert connection.size < empty + 10 * MAX_ASKED_FOR


def test_same_request_costs_nothing_more() -> None:
    """A client that asks for the same for months keeps what it was sent."""
    sent = SentRoom(LIVE, limit=1, config=CONFIG)
    state = ConnectionState("s1-1", SyncToken(1), {1: sent})
    connection = SlidingConnection(1, state)
    same = scope(MAX_ASKED_FOR // 4)

    connection.use_scope(same)
    size = connection.size
    for _ in range(100):
        connection.use_scope(same)

    assert connection.size == size
    assert state.rooms[1].config is CONFIG
