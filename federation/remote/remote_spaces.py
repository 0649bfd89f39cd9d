"""What other servers say of rooms that this one is not in, and of the rooms of spaces.

An answer is remembered for some minutes; that there was none, or that a room was out of reach, for
seconds alone, since whoever opens a room wants it seen. All together they are bounded by their
size. What in an answer makes no sense is left out.

Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
CLOSED_SECONDS = 5.0  # that a room was out of reach: that may change at any moment
MAX_CACHED_BYTES = 32 * 1_048_576  # bytes of answers
MAX_RESPONSE_BYTES = 2 * 1_048_576  # bytes
MAX_SERVERS = 3  # that are asked in turn
TIMEOUT_SECONDS = 8.0  # a user waits
OVERHEAD = 1_024  # bytes that an answer takes beside its own

log = Logger()


class RemoteHierarchyResponse(msgspec.Struct):
    """A room and its children; each is decoded by itself, as any may be malformed."""

    room: msgspec.Raw
    children: FewElements = []
    inaccessible_children: FewElements = []


class RemoteRoom(SpaceRoom, frozen=True, kw_only=True, omit_defaults=True):
    """A room as another server describes it."""

    num_joined_members: Annotated[int, msgspec.Meta(ge=0)]
    # Where it is left out, the room is public.
    join_rule: str | None = "public"
    children_state: list[msgspec.Raw] = msgspec.field(default_factory=list)


class ChildState(msgspec.Struct):
    """A stripped `m.space.child` event."""

    type: str
    state_key: str
    sender: str
    content: dict[str, Any]
    origin_server_ts: int


@dataclass(frozen=True, slots=True)
class _Told:
    """What was learnt of a room, of those in it, and until when that is believed."""

    until: float
    size: int = OVERHEAD
    room: RoomDescription | None = None
    children: Mapping[str, RoomDescription] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()


class RemoteSpaces:
    """Asks other servers about rooms."""

    def __init__(self, own_name: str, clock: Clock, client: FederationClient) -> None:
        self._own_name = own_name
        self._clock = clock
        self._client = client
        self._told: LruCache[str, _Told] = LruCache(
            "remote_spaces", MAX_CACHED_BYTES, size_of=lambda _, told: told.size
        )
        self._asking: SingleFlight[str, _Told] = SingleFlight()

    async def describe(self, room_id: str, via: Sequence[str]) -> RoomDescription | None:
        """What one of the servers says of a room."""
        told = self._remembered(room_id)
        if told is None:
            others = [name for name in via if name != self._own_name]
            servers = list(dict.fromkeys(others))[:MAX_SERVERS]
            if not servers and not self._asking.is_running(room_id):
                return None
            told = await self._asking.join(room_id, partial(self._learn, room_id, servers))
        return told.room

    def child_of(self, parent: str, room_id: str) -> RoomDescription | None:
        """What was said of a room together with a space that it is in, if that is remembered."""
        told = self._remembered(parent)
        return None if told is None else told.children.get(room_id)

    def is_closed(self, parent: str, room_id: str) -> bool:
        """Whether it was said that nobody here can get into a room of a space."""
        told = self._remembered(parent)
        return told is not None and room_id in told.closed

    def _remembered(self, room_id: str) -> _Told | None:
        told = self._told.get(room_id)
        return None if told is None or told.until <= self._clock.seconds() else told

    async def _learn(self, room_id: str, servers: Sequence[str]) -> _Told:
        told = _Told(self._clock.seconds() + CLOSED_SECONDS)
        for server in servers:
            try:
                told = await self._ask(server, room_id)
                break
            except (FederationError, ValueError) as error:
                log.info("nothing is learnt of {room}: {error}", room=room_id, error=error)
        return self._told.put(room_id, told)

    async def _ask(self, server: str, room_id: str) -> _Told:
        answer: RemoteHierarchyResponse = await self._client.get(
            server,
            path_of(f"{V1}/hierarchy", room_id),
            query={"suggested_only": "false"},
            answer=RemoteHierarchyResponse,
            timeout=TIMEOUT_SECONDS,
            max_answer=MAX_RESPONSE_BYTES,
        )
        room = _described(answer.room)
        if room is None or room.summary.room_id != room_id:
            raise ValueError(f"{server} described no room, or another one")
        wanted = {each.child.room_id for each in room.children}
        children = {
            child.summary.room_id: child
            for child in map(_described, answer.children[:MAX_CHILDREN])
            if child is not None and child.summary.room_id in wanted
        }
        closed = wanted.intersection(decodable(answer.inaccessible_children, str))
        size = OVERHEAD + len(answer.room) + sum(map(len, answer.children))
        # Whoever asks again for what was closed asks for the space that it is in, once for all.
        seconds = CLOSED_SECONDS if closed else CACHE_TTL_SECONDS
        until = self._clock.seconds() + seconds
        return _Told(until, size, room, children, frozenset(closed))


def _described(raw: msgspec.Raw) -> RoomDescription | None:
    """A room as it was described; `None` where that is no description."""
    try:
        room: RemoteRoom = decode_apart(RemoteRoom, raw)
    except BadElement:
        return None
    if not is_valid_room_id(room.room_id):
        return None
    fields = {name: getattr(room, name) for name in RoomSummary.__struct_fields__}
    # Who the user is to that room is known here alone.
    summary = RoomSummary(**{**fields, "membership": None})
    children = _children(room.children_state[:MAX_CHILDREN]) if summary.room_type == SPACE else []
    return RoomDescription(summary, in_order([*children]))


def _children(events: Iterable[msgspec.Raw]) -> Iterable[ChildEvent]:
    for event in decodable(events, ChildState):
        child = parse_child(event.state_key, event.content, event.origin_server_ts)
        if event.type == SPACE_CHILD and child is not None:
            # Encoded anew, it has no members but those that clients are told.
            yield ChildEvent(child, msgspec.Raw(msgspec.json.encode(event)))
