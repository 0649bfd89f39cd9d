"""The stored form of a connection: MessagePack, a few bytes for each room.

Most rooms of a connection were sent in the same way, so they are grouped by that; the nids of a
group are stored as differences. Another version of the form is another `VERSION`: a connection in
an unknown one begins again.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec

from homeserver.protocol.sliding_sync.room_config import RoomConfig
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sliding.connection import (
    ConnectionState,
    OfferedState,
    SentRoom,
    SlidingConnection,
)

VERSION = 1

_Group = tuple[tuple[int, int, int, int, int, bool], int, list[int]]  # what was sent, config, nids
_Token = tuple[int, tuple[tuple[int, int], ...], int | None]


class _State(msgspec.Struct, array_like=True):
    """A state; `pos` is that by which a client names it."""

    pos: str | None
    token: _Token | None
    groups: list[_Group]
    e2ee: _Token | None
    account_data: _Token | None
    threads: _Token | None = None


class _Connection(msgspec.Struct, array_like=True):
    version: int
    number: int
    configs: list[RoomConfig]
    state: _State
    offered: _State | None


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Connection)


def encode_connection(connection: SlidingConnection) -> bytes:
    """The stored form."""
    configs: dict[RoomConfig, int] = {}
    state, offered = connection.state, connection.offered
    stored = _stored(state, state.pos, configs)
    stored_offer = None if offered is None else _stored(offered, connection.offered_pos, configs)
    return _encode(_Connection(VERSION, connection.number, list(configs), stored, stored_offer))


def decode_connection(stored: bytes) -> SlidingConnection | None:
    """The connection of a stored form; `None` for one that this version does not know."""
    try:
        found = _decoder.decode(stored)
    except msgspec.MsgspecError:
        return None
    if found.version != VERSION:
        return None
    before = found.state
    state = ConnectionState(
        before.pos,
        _token(before.token),
        _rooms(before.groups, found.configs),
        _token(before.e2ee),
        _token(before.account_data),
        threads=_token(before.threads),
    )
    connection = SlidingConnection(found.number, state)
    offered = found.offered
    token = None if offered is None else _token(offered.token)
    if offered is not None and token is not None:
        connection.offered_pos = offered.pos
        connection.offered = OfferedState(
            token,
            _rooms(offered.groups, found.configs),
            _token(offered.e2ee),
            _token(offered.account_data),
            threads=_token(offered.threads),
        )
    return connection


def _stored(
    state: ConnectionState | OfferedState, pos: str | None, configs: dict[RoomConfig, int]
) -> _State:
    return _State(
        pos,
        state.token,
        _groups(state.rooms, configs),
        state.e2ee,
        state.account_data,
        state.threads,
    )


def _groups(rooms: Mapping[int, SentRoom], configs: dict[RoomConfig, int]) -> list[_Group]:
    by_object: dict[int, int] = {}  # the index of a config by the identity of an equal one
    grouped: dict[tuple[tuple[int, int, int, int, int, bool], int], list[int]] = {}
    for nid, sent in rooms.items():
        config = sent.config
        index = by_object.get(id(config))
        if index is None:
            index = by_object[id(config)] = configs.setdefault(config, len(configs))
        grouped.setdefault((sent[:6], index), []).append(nid)
    return [(sent, index, _differences(nids)) for (sent, index), nids in grouped.items()]


def _rooms(groups: Sequence[_Group], configs: Sequence[RoomConfig]) -> dict[int, SentRoom]:
    rooms: dict[int, SentRoom] = {}
    for sent, index, differences in groups:
        each, nid = SentRoom(*sent, configs[index]), 0
        for difference in differences:
            nid += difference
            rooms[nid] = each
    return rooms


def _differences(nids: list[int]) -> list[int]:
    return [later - earlier for earlier, later in pairwise([0, *sorted(nids)])]


def _token(stored: _Token | None) -> SyncToken | None:
    return None if stored is None else SyncToken(*stored)
