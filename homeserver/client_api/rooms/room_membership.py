"""Joining, inviting, leaving, kicking, banning and knocking over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-membership
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.rooms.create_room import UserId
from homeserver.protocol.errors import BadJson
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.rooms.discovery.aliases import Aliases
from homeserver.rooms.history.room_reader import RoomReader
from homeserver.rooms.membership.memberships import Memberships
from homeserver.rooms.membership.third_party_invites import InvitedAddress, ThirdPartyInvites
from homeserver.web.routes import Auth, Route

ROOM = "/_matrix/client/v3/rooms/{room_id}"
NO_MEMBERS: Mapping[str, Any] = MappingProxyType({})  # the body of a request without one


class MembershipReason(msgspec.Struct):
    """The reason for leaving or knocking."""

    reason: str | None = None


class ThirdPartySigned(msgspec.Struct):
    """The proof that a user has an address, with the sender of the invite."""

    sender: UserId
    mxid: UserId
    token: str
    signatures: dict[str, dict[str, str]]


class Join(msgspec.Struct):
    """The reason for joining, and the proof of an invite by a third-party identifier.

    Other members of the body become part of the member event.
    """

    reason: str | None = None
    third_party_signed: ThirdPartySigned | None = None


class Via(msgspec.Struct):
    """Servers that may be in the room; `server_name` is the old name of `via`."""

    via: list[str] = []
    server_name: list[str] = []

    @property
    def servers(self) -> list[str]:
        """The valid server names of both parameters."""
        return [name for name in (*self.via, *self.server_name) if is_valid_server_name(name)]


class MembershipTarget(msgspec.Struct):
    """The target user, and the reason."""

    user_id: UserId
    reason: str | None = None


class InviteRequest(msgspec.Struct):
    """The invited user, or the invited address."""

    user_id: UserId | None = None
    reason: str | None = None
    medium: str | None = None
    address: str | None = None
    id_server: str | None = None
    id_access_token: str | None = None

    @property
    def invited_address(self) -> InvitedAddress:
        """The invited address. Raises `BadJson`."""
        if self.medium is None or self.address is None:
            raise BadJson("user_id is missing")
        if self.id_server is None or self.id_access_token is None:
            raise BadJson("id_server and id_access_token are needed to invite an address")
        return InvitedAddress(self.id_server, self.id_access_token, self.medium, self.address)


class RoomMembershipApi:
    def __init__(
        self,
        memberships: Memberships,
        third_party: ThirdPartyInvites,
        aliases: Aliases,
        reader: RoomReader,
    ) -> None:
        self._memberships = memberships
        self._third_party = third_party
        self._aliases = aliases
        self._reader = reader

    def routes(self) -> list[Route]:
        join = "/_matrix/client/v3/join/{room_id_or_alias}"
        knock = "/_matrix/client/v3/knock/{room_id_or_alias}"
        joined = "/_matrix/client/v3/joined_rooms"
        return [
            Route("POST", f"{ROOM}/join", self.join_room_by_id, Auth.GUEST, limit="join"),
            # The specification allows guests only the other one, but clients use this one.
            Route("POST", join, self.join_room, Auth.GUEST, limit="join"),
            Route("POST", knock, self.knock_room, limit="join"),
            Route("POST", f"{ROOM}/invite", self.invite_user, limit="invite"),
            Route("POST", f"{ROOM}/leave", self.leave_room, Auth.GUEST, limit="message"),
            Route("POST", f"{ROOM}/forget", self.forget_room, limit="settings"),
            Route("POST", f"{ROOM}/kick", self.kick, limit="message"),
            Route("POST", f"{ROOM}/ban", self.ban, limit="message"),
            Route("POST", f"{ROOM}/unban", self.unban, limit="message"),
            Route("GET", joined, self.get_joined_rooms),
        ]

    async def join_room_by_id(
        self, caller: Requester, room_id: str, body: Mapping[str, Any] = NO_MEMBERS
    ) -> dict[str, str]:
        """Join a room by its id."""
        return await self._join(caller, room_id, [], body)

    async def join_room(
        self,
        caller: Requester,
        room_id_or_alias: str,
        query: Via,
        body: Mapping[str, Any] = NO_MEMBERS,
    ) -> dict[str, str]:
        """Join a room by its id or an alias."""
        room_id, servers = await self._find(caller, room_id_or_alias, query)
        return await self._join(caller, room_id, servers, body)

    async def knock_room(
        self, caller: Requester, room_id_or_alias: str, body: MembershipReason, query: Via
    ) -> dict[str, str]:
        """Knock on a room."""
        room_id, servers = await self._find(caller, room_id_or_alias, query)
        await self._memberships.knock(caller, room_id, reason=body.reason, servers=servers)
        return {"room_id": room_id}

    async def invite_user(self, caller: Requester, room_id: str, body: InviteRequest) -> None:
        """Invite a user or an address."""
        if body.user_id is None:
            await self._third_party.invite(caller, room_id, body.invited_address)
            return
        await self._memberships.invite(caller, room_id, body.user_id, reason=body.reason)

    async def leave_room(self, caller: Requester, room_id: str, body: MembershipReason) -> None:
        """Leave a room, or decline an invite."""
        await self._memberships.leave(caller, room_id, reason=body.reason)

    async def forget_room(self, caller: Requester, room_id: str) -> None:
        """Forget a room that the caller left."""
        await self._memberships.forget(caller, room_id)

    async def kick(self, caller: Requester, room_id: str, body: MembershipTarget) -> None:
        """Kick a user from a room."""
        await self._memberships.kick(caller, room_id, body.user_id, reason=body.reason)

    async def ban(self, caller: Requester, room_id: str, body: MembershipTarget) -> None:
        """Ban a user from a room."""
        await self._memberships.ban(caller, room_id, body.user_id, reason=body.reason)

    async def unban(self, caller: Requester, room_id: str, body: MembershipTarget) -> None:
        """Unban a user."""
        await self._memberships.unban(caller, room_id, body.user_id, reason=body.reason)

    async def get_joined_rooms(self, caller: Requester) -> dict[str, list[str]]:
        """The rooms that the caller is joined to."""
        return {"joined_rooms": await self._reader.joined_rooms(caller.user_id)}

    async def _join(
        self, caller: Requester, room_id: str, servers: list[str], body: Mapping[str, Any]
    ) -> dict[str, str]:
        more = dict(body)
        try:
            join = msgspec.convert(more, Join)
        except msgspec.ValidationError as error:
            raise BadJson(str(error)) from None
        signed = more.pop("third_party_signed", None)
        if join.third_party_signed is not None:
            await self._third_party.redeem_own(
                caller, room_id, join.third_party_signed.sender, signed
            )
        if join.reason is None:
            more.pop("reason", None)
        await self._memberships.join(
            caller,
            room_id,
            more=more,
            servers=servers,
        )
        return {"room_id": room_id}

    async def _find(
        self, caller: Requester, room_id_or_alias: str, query: Via
    ) -> tuple[str, list[str]]:
        """The room's id, and servers that may be in it."""
        if not room_id_or_alias.startswith("#"):
            return room_id_or_alias, query.servers
        target = await self._aliases.resolve(room_id_or_alias, caller)
        return target.room_id, [*query.servers, *target.servers]
