"""The stored form of a connection: MessagePack, a few bytes for each room.

Most rooms of a connection were sent in the same way, so they are grouped by that; the nids of a
group are stored as differences. Another version of the form is another `VERSION`: a connection in
an unknown one begins again.

A config takes some kilobytes in memory, and most clients have the same ones: those that are stored
as the same bytes become the same object.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.sliding_sync.room_config import RoomConfig
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sliding.connection import (
    NEVER,
    ConnectionState,
    OfferedState,
    SentProfiles,
    SentRoom,
    SlidingConnection,
)

VERSION = 1
MAX_CONFIG_BYTES = 1 << 20  # of the stored form of those configs that are known

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
    profiles: tuple[_Token, list[str] | None] | None = None
    sent_profiles: list[int] = []  # `SentRoom.profiles` of each group


class _Connection(msgspec.Struct, array_like=True):
    version: int
    number: int
    configs: list[msgspec.Raw]
    state: _State
    offered: _State | None


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Connection)
_config_decoder = msgspec.msgpack.Decoder(RoomConfig)


def encode_connection(connection: SlidingConnection) -> bytes:
    """The stored form."""
    configs: dict[RoomConfig, int] = {}
    state, offered = connection.state, connection.offered
    stored = _stored(state, state.pos, configs)
    stored_offer = None if offered is None else _stored(offered, connection.offered_pos, configs)
    encoded = [msgspec.Raw(_encode(config)) for config in configs]
    return _encode(_Connection(VERSION, connection.number, encoded, stored, stored_offer))


class ConnectionDecoder:
    """Makes connections of their stored form."""

    def __init__(self) -> None:
        self._configs: LruCache[bytes, RoomConfig] = LruCache(
            "stored_sync_configs", MAX_CONFIG_BYTES, size_of=lambda stored, _: len(stored)
        )

    def decode(self, stored: bytes) -> SlidingConnection | None:
        """The connection of a stored form; `None` for one that this version does not know."""
        try:
            found = _decoder.decode(stored)
            configs = [self._config(bytes(config)) for config in found.configs]
        except msgspec.MsgspecError:
            return None
        return _connection(found, configs) if found.version == VERSION else None

    def _config(self, stored: bytes) -> RoomConfig:
        known = self._configs.get(stored)
        return known or self._configs.put(stored, _config_decoder.decode(stored))


def _connection(found: _Connection, configs: Sequence[RoomConfig]) -> SlidingConnection:
    before = found.state
    state = ConnectionState(
        before.pos,
        _token(before.token),
        _rooms(before, configs),
        _token(before.e2ee),
        _token(before.account_data),
        threads=_token(before.threads),
        profiles=_profiles(before),
    )
    connection = SlidingConnection(found.number, state)
    offered = found.offered
    token = None if offered is None else _token(offered.token)
    if offered is not None and token is not None:
        connection.offered_pos = offered.pos
        connection.offered = OfferedState(
            token,
            _rooms(offered, configs),
            _token(offered.e2ee),
            _token(offered.account_data),
            threads=_token(offered.threads),
            profiles=_profiles(offered),
        )
    return connection


def _stored(
    state: ConnectionState | OfferedState, pos: str | None, configs: dict[RoomConfig, int]
) -> _State:
    groups, sent_profiles = _groups(state.rooms, configs)
    profiles = state.profiles
    fields = None if profiles is None or profiles.fields is None else sorted(profiles.fields)
    return _State(
        pos,
        _bare(state.token),
        groups,
        _bare(state.e2ee),
        _bare(state.account_data),
        _bare(state.threads),
        None if profiles is None else (profiles.token[:3], fields),
        sent_profiles if any(sent_profiles) else [],
    )


def _groups(
    rooms: Mapping[int, SentRoom], configs: dict[RoomConfig, int]
) -> tuple[list[_Group], list[int]]:
    """The groups, and `SentRoom.profiles` of each."""
    by_object: dict[int, int] = {}  # the index of a config by the identity of an equal one
    grouped: dict[tuple[tuple[int, int, int, int, int, bool], int, int], list[int]] = {}
    for nid, sent in rooms.items():
        config = sent.config
        index = by_object.get(id(config))
        if index is None:
            index = by_object[id(config)] = configs.setdefault(config, len(configs))
        grouped.setdefault((sent[:6], index, sent.profiles), []).append(nid)
    groups = [(sent, index, _differences(nids)) for (sent, index, _), nids in grouped.items()]
    return groups, [profiles for _, _, profiles in grouped]


def _rooms(stored: _State, configs: Sequence[RoomConfig]) -> dict[int, SentRoom]:
    rooms: dict[int, SentRoom] = {}
    profiles = stored.sent_profiles or [NEVER] * len(stored.groups)
    for (sent, index, differences), position in zip(stored.groups, profiles, strict=True):
        each = SentRoom(*sent, configs[index], position)
        rooms.update(dict.fromkeys(accumulate(differences), each))
    return rooms


def _differences(nids: list[int]) -> list[int]:
    return [later - earlier for earlier, later in pairwise([0, *sorted(nids)])]


def _bare(token: SyncToken | None) -> _Token | None:
    """A token as it is stored: none of a connection has the position of its sticky events."""
    return None if token is None else token[:3]


def _token(stored: _Token | None) -> SyncToken | None:
    return None if stored is None else SyncToken(*stored)


def _profiles(stored: _State) -> SentProfiles | None:
    if stored.profiles is None:
        return None
    token, fields = stored.profiles
    return SentProfiles(SyncToken(*token), None if fields is None else frozenset(fields))
