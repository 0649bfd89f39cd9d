"""Descriptions by other servers of rooms that this one is not in, and of the rooms of spaces.

A response is cached for some minutes; a failure, or that a room was inaccessible, only for seconds,
since a user who opens a room wants to see it. The cache is bounded by its size in bytes. Malformed
parts of a response are left out.

Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from twisted.logger import Logger

from federation.paths import V1, path_of
from federation.transport.client import FederationClient
from federation.transport.errors import FederationError
from federation.transport.lenient_lists import FewElements
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.single_flight import SingleFlight
from homeserver.protocol.event_types import SPACE_CHILD
from homeserver.protocol.identifiers import is_valid_room_id
from homeserver.protocol.json_elements import BadElement, decodable, decode_apart
from homeserver.protocol.spaces import SPACE, parse_child
from homeserver.rooms.discovery.room_summaries import RoomSummary
from homeserver.rooms.discovery.space_children import (
    MAX_CHILDREN,
    ChildEvent,
    RoomDescription,
    SpaceRoom,
    in_order,
)

CACHE_TTL_SECONDS = 300.0
INACCESSIBLE_SECONDS = 5.0  # for inaccessible rooms: that may change at any moment
MAX_CACHED_BYTES = 32 * 1_048_576  # bytes of responses
MAX_RESPONSE_BYTES = 2 * 1_048_576  # bytes
MAX_SERVERS = 3  # asked in turn
TIMEOUT_SECONDS = 8.0  # a user waits
OVERHEAD = 1_024  # bytes that a cached response takes in addition to its body

log = Logger()


class RemoteHierarchyResponse(msgspec.Struct):
    """A room and its children; each is decoded alone, as any may be malformed."""

    room: msgspec.Raw
    children: FewElements = []
    inaccessible_children: FewElements = []


class RemoteRoom(SpaceRoom, frozen=True, kw_only=True, omit_defaults=True):
    """A room as another server describes it."""

    num_joined_members: Annotated[int, msgspec.Meta(ge=0)]
    # If the field is missing, the room is public.
    join_rule: str | None = "public"
    children_state: list[msgspec.Raw] = msgspec.field(default_factory=list)


class ChildState(msgspec.Struct):
    """A stripped `m.space.child` event."""

    type: str
    state_key: str
    sender: str
    content: dict[str, Any]
    origin_server_ts: int


class _CachedResponse(msgspec.Struct, frozen=True):
    """A cached response: a room, its children, and the time at which it expires."""

    until: float
    size: int = OVERHEAD
    room: RoomDescription | None = None
    children: Mapping[str, RoomDescription] = msgspec.field(default_factory=dict)
    inaccessible: frozenset[str] = frozenset()


class RemoteSpaces:
    """Fetches and caches descriptions of rooms."""

    def __init__(self, own_name: str, clock: Clock, client: FederationClient) -> None:
        self._own_name = own_name
        self._clock = clock
        self._client = client
        self._cache: LruCache[str, _CachedResponse] = LruCache(
            "remote_spaces", MAX_CACHED_BYTES, size_of=lambda _, cached: cached.size
        )
        self._asking: SingleFlight[str, _CachedResponse] = SingleFlight()

    async def describe(self, room_id: str, via: Sequence[str]) -> RoomDescription | None:
        """A room as the first responding server describes it."""
        cached = self._cached(room_id)
        if cached is None:
            others = [name for name in via if name != self._own_name]
            servers = list(dict.fromkeys(others))[:MAX_SERVERS]
            if not servers and not self._asking.is_running(room_id):
                return None
            cached = await self._asking.join(room_id, partial(self._fetch, room_id, servers))
        return cached.room

    def child_of(self, parent: str, room_id: str) -> RoomDescription | None:
        """A room as described in the cached response of a space that it is in."""
        cached = self._cached(parent)
        return None if cached is None else cached.children.get(room_id)

    def is_inaccessible(self, parent: str, room_id: str) -> bool:
        """Whether local users cannot join a room, by the cached response of a space."""
        cached = self._cached(parent)
        return cached is not None and room_id in cached.inaccessible

    def _cached(self, room_id: str) -> _CachedResponse | None:
        cached = self._cache.get(room_id)
        return None if cached is None or cached.until <= self._clock.seconds() else cached

    async def _fetch(self, room_id: str, servers: Sequence[str]) -> _CachedResponse:
        cached = _CachedResponse(self._clock.seconds() + INACCESSIBLE_SECONDS)
        for server in servers:
            try:
                cached = await self._ask(server, room_id)
                break
            except (FederationError, ValueError) as error:
                log.info(
                    "could not fetch remote hierarchy of {room}: {error}",
                    room=room_id,
                    error=error,
                )
        return self._cache.put(room_id, cached)

    async def _ask(self, server: str, room_id: str) -> _CachedResponse:
        response: RemoteHierarchyResponse = await self._client.get(
            server,
            path_of(f"{V1}/hierarchy", room_id),
            query={"suggested_only": "false"},
            response_type=RemoteHierarchyResponse,
            timeout=TIMEOUT_SECONDS,
            max_response=MAX_RESPONSE_BYTES,
        )
        room = _described(response.room)
        if room is None or room.summary.room_id != room_id:
            raise ValueError(f"{server} returned no room, or another one")
        child_ids = {each.child.room_id for each in room.children}
        children = {
            child.summary.room_id: child
            for child in map(_described, response.children[:MAX_CHILDREN])
            if child is not None and child.summary.room_id in child_ids
        }
        inaccessible = child_ids.intersection(decodable(response.inaccessible_children, str))
        size = OVERHEAD + len(response.room) + sum(map(len, response.children))
        # For an inaccessible room the space is fetched again, once for all its rooms.
        seconds = INACCESSIBLE_SECONDS if inaccessible else CACHE_TTL_SECONDS
        until = self._clock.seconds() + seconds
        return _CachedResponse(until, size, room, children, frozenset(inaccessible))


def _described(raw: msgspec.Raw) -> RoomDescription | None:
    """The description of a room; `None` if it is malformed."""
    try:
        room: RemoteRoom = decode_apart(RemoteRoom, raw)
    except BadElement:
        return None
    if not is_valid_room_id(room.room_id):
        return None
    fields = {name: getattr(room, name) for name in RoomSummary.__struct_fields__}
    # Only this server knows the user's membership.
    summary = RoomSummary(**{**fields, "membership": None})
    children = _children(room.children_state[:MAX_CHILDREN]) if summary.room_type == SPACE else []
    return RoomDescription(summary, in_order([*children]))


def _children(events: Iterable[msgspec.Raw]) -> Iterable[ChildEvent]:
    for event in decodable(events, ChildState):
        child = parse_child(event.state_key, event.content, event.origin_server_ts)
        if event.type == SPACE_CHILD and child is not None:
            # Encoded again, it has only the members that clients get.
            yield ChildEvent(child, msgspec.Raw(msgspec.json.encode(event)))
