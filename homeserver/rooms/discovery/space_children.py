"""Rooms of a space: their summaries, the children of spaces, and which users may see which room.

Spec: https://spec.matrix.org/v1.19/client-server-api/#discovering-rooms-within-spaces
"""

from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

import msgspec

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

MAX_CHILDREN = 1_000  # of one space


class SpaceRoom(RoomSummary, frozen=True, kw_only=True, omit_defaults=True):
    """A room in the response of `/hierarchy`; `children_state` are stripped events."""

    children_state: Sequence[Any]


class ChildEvent(msgspec.Struct, frozen=True):
    """A child, and the event that declares it in stripped form."""

    child: Child
    event: Any


class RoomDescription(msgspec.Struct, frozen=True):
    """A room with its children, in the order of the specification."""

    summary: RoomSummary
    children: Sequence[ChildEvent] = ()

    @property
    def is_space(self) -> bool:
        return self.summary.room_type == SPACE

    def suggested(self) -> "RoomDescription":
        """The same with only the suggested children."""
        children = [each for each in self.children if each.child.suggested]
        return RoomDescription(self.summary, children)

    def shown(self) -> SpaceRoom:
        """The room in the form of the response."""
        fields = {name: getattr(self.summary, name) for name in self.summary.__struct_fields__}
        return SpaceRoom(**fields, children_state=[each.event for each in self.children])


class SpaceChildRooms:
    """Describes the rooms that this server is in, and decides which users may see which room."""

    def __init__(
        self,
        rooms: RoomRegistry,
        summaries: RoomSummaries,
        user_rooms: UserRooms,
        out_of_room: OutOfRoomMemberships,
    ) -> None:
        self._rooms = rooms
        self._summaries = summaries
        self._user_rooms = user_rooms
        self._out_of_room = out_of_room

    async def find(self, room_id: str) -> Room | None:
        """The room, if this server is in it; its state of other rooms is out of date."""
        room = await self._rooms.find(room_id)
        if room is None or self._rooms.local_server.server_name not in room.joined_servers:
            return None
        return room

    async def describe(self, room: Room) -> RoomDescription:
        """The description of a room that this server is in."""
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
        """A user's membership, also in a room of which this server knows nothing else."""
        room_nid = await self._rooms.find_room_nid(room_id)
        place = (await self._user_rooms.of(user_id)).get(room_nid or 0)
        return None if place is None else place.membership

    async def likely_servers(self, user_id: str, room_id: str) -> tuple[str, ...]:
        """Servers that may know a room of which only the id is given.

        They are those of the user's invites or knock, and that of the user who changed the
        membership last.
        """
        room_nid = await self._rooms.find_room_nid(room_id)
        place = (await self._user_rooms.of(user_id)).get(room_nid or 0)
        names = await self._out_of_room.servers(room_nid or 0, user_id)
        if place is not None:
            names.append(server_name_of(place.sender))
        if (hint := creating_server_hint(room_id)) is not None:
            names.append(hint)
        return tuple(filter(is_valid_server_name, dict.fromkeys(names)))

    async def may_user_know(self, user_id: str, summary: RoomSummary) -> bool:
        """Whether a user may see a room, local or remote."""
        membership = await self.membership(user_id, summary.room_id)

        def is_in(room: Room) -> bool:
            return room.membership(user_id) == "join"

        return await self._may_know(summary, () if membership is None else (membership,), is_in)

    async def may_server_know(self, server: str, room: Room, summary: RoomSummary) -> bool:
        """Whether users of a server could read the room, join it, or knock on it."""
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
    """The memberships of a server's users, without bans: a ban of one is no ban of all."""
    suffix = f":{server}"
    found = {membership for user_id, membership in room.members.items() if user_id.endswith(suffix)}
    return found & {"join", "invite"}
