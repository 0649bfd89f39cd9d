"""A room's members over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers
"""

from typing import Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.rooms.room_events import state_json
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.history.room_reader import RoomReader
from homeserver.web.routes import Auth, Route

ROOM = "/_matrix/client/v3/rooms/{room_id}"

Membership = Literal["join", "invite", "knock", "leave", "ban"]


class MembersQuery(msgspec.Struct):
    """The memberships to list, and the time: `at` is a token."""

    at: str | None = None
    membership: Membership | None = None
    not_membership: Membership | None = None


class RoomMembersApi:
    def __init__(self, reader: RoomReader, local_server: LocalServer) -> None:
        self._reader = reader
        self._local_server = local_server

    def routes(self) -> list[Route]:
        members, joined = f"{ROOM}/members", f"{ROOM}/joined_members"
        return [
            Route("GET", members, self.get_members_by_room, Auth.GUEST, cancellable=True),
            Route("GET", joined, self.get_joined_members_by_room, cancellable=True),
        ]

    async def get_members_by_room(
        self, caller: Requester, room_id: str, query: MembersQuery
    ) -> dict[str, msgspec.Raw]:
        """Member events of a room."""
        events = await self._reader.members(
            caller.user_id,
            room_id,
            at=query.at,
            membership=query.membership,
            not_membership=query.not_membership,
        )
        return {"chunk": await state_json(events, caller, self._local_server)}

    async def get_joined_members_by_room(
        self, caller: Requester, room_id: str
    ) -> dict[str, dict[str, dict[str, str | None]]]:
        """The display names and avatars of the joined members of a room."""
        return {"joined": await self._reader.joined_members(caller.user_id, room_id)}
