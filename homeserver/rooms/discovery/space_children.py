"""Rooms as a space shows them: a summary and, of a space, its children; and who may be told.

Spec: https://spec.matrix.org/v1.19/client-server-api/#discovering-rooms-within-spaces
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from homeserver.protocol.event_types import SPACE_CHILD
from homeserver.protocol.identifiers import (
    creating_server_hint,
    is_valid_server_name,
    server_name_of,
)
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.spaces import SPACE, Child, may_be_shown, parse_child
from homeserver.rooms.discovery.room_summaries import RoomSummaries, RoomSummary
from homeserver.rooms.membership.out_of_room_memberships import OutOfRoomMemberships
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import UserRooms

MAX_CHILDREN = 1_000  # of one space that are looked at


class SpaceRoom(RoomSummary, frozen=True, kw_only=True, omit_defaults=True):
    """A room in the answer of `/hierarchy`; `children_state` are stripped events."""

    children_state: Sequence[Any]


@dataclass(frozen=True, slots=True)
class ChildEvent:
    """A child, and the event that declares it as others are shown it."""

    child: Child
    event: Any


@dataclass(frozen=True, slots=True)
class RoomDescription:
    """What is known of a room. The children are in the order of the specification."""

    summary: RoomSummary
    children: Sequence[ChildEvent] = ()

    @property
    def is_space(self) -> bool:
        return self.summary.room_type == SPACE

    def suggested(self) -> "RoomDescription":
        """The same with those of the children alone that are suggested."""
        children = [each for each in self.children if each.child.suggested]
        return RoomDescription(self.summary, children)

    def shown(self) -> SpaceRoom:
        """The room as it is answered."""
        fields = {name: getattr(self.summary, name) for name in self.summary.__struct_fields__}
        return SpaceRoom(**fields, children_state=[each.event for each in self.children])


class SpaceChildRooms:
    """Describes the rooms that this server is in, and knows who may be told of which room."""

    def __init__(
        self,
        rooms: RoomRegistry,
        summaries: RoomSummaries,
        user_rooms: UserRooms,
        distant: OutOfRoomMemberships,
    ) -> None:
        self._rooms = rooms
        self._summaries = summaries
        self._user_rooms = user_rooms
        self._out_of_room = distant

    async def find(self, room_id: str) -> Room | None:
        """The room, if this server is in it; what it knows of others is out of date."""
        room = await self._rooms.find(room_id)
        if room is None or self._rooms.local_server.server_name not in room.joined_servers:
            return None
        return room

    async def describe(self, room: Room) -> RoomDescription:
        """What a room of this server is like."""
        summary = await self._summaries.of(room.room_nid)
        assert summary is not None, "a room that is loaded exists"
        if summary.room_type != SPACE:
            return RoomDescription(summary)
        keys = islice((key for key in room.state if key[0] == SPACE_CHILD), MAX_CHILDREN)
        state = await self._rooms.current(room, [*keys])
        children = []
        for (_, room_id), stored in state.items():
            event = stored.shown
            child = parse_child(room_id, event.content, event.origin_server_ts)
            if child is not None:
                stripped = {
                    "type": SPACE_CHILD,
                    "state_key": room_id,
                    "sender": event.sender,
                    "content": event.content,
                    "origin_server_ts": event.origin_server_ts,
                }
                children.append(ChildEvent(child, stripped))
        return RoomDescription(summary, in_order(children))

    async def membership(self, user_id: str, room_id: str) -> str | None:
        """A user's membership, also where this server knows no more of the room than that."""
        number = await self._rooms.find_room_nid(room_id)
        place = (await self._user_rooms.of(user_id)).get(number or 0)
        return None if place is None else place.membership

    async def likely_servers(self, user_id: str, room_id: str) -> tuple[str, ...]:
        """Servers that may know a room of which nothing but its id is given.

        Those by way of which the user is invited, or has knocked, and that of whoever moved them
        there last.
        """
        number = await self._rooms.find_room_nid(room_id)
        place = (await self._user_rooms.of(user_id)).get(number or 0)
        names = await self._out_of_room.servers(number or 0, user_id)
        if place is not None:
            names.append(server_name_of(place.sender))
        if (hint := creating_server_hint(room_id)) is not None:
            names.append(hint)
        return tuple(filter(is_valid_server_name, dict.fromkeys(names)))

    async def may_user_know(self, user_id: str, summary: RoomSummary) -> bool:
        """Whether a user may be told of a room, here or elsewhere."""
        membership = await self.membership(user_id, summary.room_id)

        def is_in(room: Room) -> bool:
            return room.membership(user_id) == "join"

        return await self._may_know(summary, () if membership is None else (membership,), is_in)

    async def may_server_know(self, server: str, room: Room, summary: RoomSummary) -> bool:
        """Whether users of a server could read the room, join it, or knock at it."""
        memberships = {"join"} if server in room.servers else _of_server(room, server)

        def is_in(allowed: Room) -> bool:
            return server in allowed.servers

        return await self._may_know(summary, memberships, is_in)

    async def _may_know(
        self, summary: RoomSummary, memberships: Collection[str], is_in: Any
    ) -> bool:
        version = ROOM_VERSIONS.get(summary.room_version or "")
        is_allowed = False
        for room_id in summary.allowed_room_ids:
            room = await self.find(room_id)
            if room is not None and is_in(room):
                is_allowed = True
                break
        return may_be_shown(
            join_rule=summary.join_rule,
            world_readable=summary.world_readable,
            memberships=memberships,
            is_allowed=is_allowed,
            version=version,
        )


def in_order(children: Sequence[ChildEvent]) -> list[ChildEvent]:
    """Children in the order of the specification."""
    return sorted(children, key=lambda each: each.child.rank)


def _of_server(room: Room, server: str) -> set[str]:
    """The memberships that count which users of a server have: a ban of one is no ban of all."""
    suffix = f":{server}"
    found = {membership for user_id, membership in room.members.items() if user_id.endswith(suffix)}
    return found & {"join", "invite"}
