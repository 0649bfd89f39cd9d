"""Invites from other servers to local users; this server accepts an invite by signing it.

Spec: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from federation.paths import V1, V2
from federation.receiving.pdu_checks import PduChecks
from federation.receiving.room_access import RoomAccess
from federation.remote.remote_memberships import stripped_events
from federation.transport.lenient_lists import decode_body
from homeserver.accounts.user_data.invite_permission import InvitePermission
from homeserver.protocol.errors import (
    BadJson,
    Forbidden,
    IncompatibleRoomVersion,
    InvalidParam,
    MissingParam,
)
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.event_types import CREATE
from homeserver.protocol.events import Event, InvalidEvent
from homeserver.protocol.json_elements import decodable
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.protocol.signing.hashes import check_content_hash
from homeserver.rooms.membership.out_of_room_memberships import MAX_STRIPPED, OutOfRoomMemberships
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.web.routes import Auth, Route


class SendInvite(msgspec.Struct):
    """An invite, the version of its room, and the stripped state."""

    event: dict[str, Any]
    room_version: str
    invite_room_state: list[msgspec.Raw] = []


class InvitesApi:
    def __init__(
        self,
        rooms: RoomRegistry,
        checks: PduChecks,
        access: RoomAccess,
        out_of_room: OutOfRoomMemberships,
        permission: InvitePermission,
    ) -> None:
        self._rooms = rooms
        self._local_server = rooms.local_server
        self._checks = checks
        self._access = access
        self._out_of_room = out_of_room
        self._permission = permission

    def routes(self) -> list[Route]:
        path, limit = "invite/{room_id}/{event_id}", "remote_invite"
        return [
            Route("PUT", f"{V1}/{path}", self.send_invite_v1, Auth.SERVER, limit=limit),
            Route("PUT", f"{V2}/{path}", self.send_invite_v2, Auth.SERVER, limit=limit),
        ]

    async def send_invite_v1(
        self, origin: str, room_id: str, event_id: str, body: dict[str, Any]
    ) -> list[Any]:
        """Sign and store an invite to a room of version 1 or 2."""
        unsigned = body.get("unsigned")
        stripped = unsigned.get("invite_room_state") if isinstance(unsigned, Mapping) else None
        stripped = stripped if isinstance(stripped, list) else []
        return [200, await self._accept(origin, room_id, event_id, "1", body, stripped)]

    async def send_invite_v2(
        self, origin: str, room_id: str, event_id: str, body: bytes
    ) -> dict[str, Any]:
        """Sign and store a `SendInvite`, and notify the user."""
        invite = await decode_body(self._local_server.clock, SendInvite, body)
        stripped = list(decodable(invite.invite_room_state[:MAX_STRIPPED]))
        return await self._accept(
            origin, room_id, event_id, invite.room_version, invite.event, stripped
        )

    async def _accept(
        self,
        origin: str,
        room_id: str,
        event_id: str,
        room_version: str,
        pdu: Mapping[str, Any],
        stripped: Sequence[Any],
    ) -> dict[str, Any]:
        version = ROOM_VERSIONS.get(room_version)
        if version is None:
            raise IncompatibleRoomVersion(
                "This server does not know the version of the room", room_version=room_version
            )
        event = await self._check(origin, version, room_id, event_id, pdu)
        room = await self._rooms.find(room_id)
        if room is not None and not await self._access.is_allowed(origin, room):
            raise Forbidden("The room's access list denies your server")
        user_id = event.state_key or ""
        stripped = stripped[:MAX_STRIPPED]
        if version.room_id_is_create_hash:
            await self._check_stripped(version, room_id, stripped)
        await self._permission.check(user_id, event.sender, origin)
        key = self._local_server.key
        signed = event.with_signature(
            self._local_server.server_name, key.key_id, key.sign(event.signing_bytes())
        )
        if room is None or self._local_server.server_name not in room.joined_servers:
            await self._out_of_room.invited(signed, origin, stripped_events(stripped))
        return {"event": msgspec.Raw(signed.json)}

    async def _check(
        self,
        origin: str,
        version: RoomVersion,
        room_id: str,
        event_id: str,
        pdu: Mapping[str, Any],
    ) -> Event:
        # Not even one that redeems a third-party invite: then this server has requested it, from
        # the server of the inviter, and any server may claim that it was requested.
        (outcome,) = await self._checks.check(version, room_id, [pdu], signers=[origin])
        if isinstance(outcome, str):
            _check_format(version, pdu)
            raise Forbidden(f"The invite cannot be accepted: {outcome}")
        event = outcome
        if (
            event.event_id != event_id
            or not is_member_event(event)
            or event.content.get("membership") != "invite"
            or event.state_key is None
        ):
            raise InvalidParam("The event is not an invite, or has another id")
        if event.sender_server != origin:
            raise Forbidden("The inviting user does not belong to your server")
        if not self._local_server.is_local(event.state_key):
            raise InvalidParam("The invited user does not belong to this server")
        return event

    async def _check_stripped(
        self, version: RoomVersion, room_id: str, stripped: Sequence[Any]
    ) -> None:
        """Check that the room is the one that its create event makes, as its version requires."""
        creates = [
            pdu for pdu in stripped if isinstance(pdu, Mapping) and pdu.get("type") == CREATE
        ]
        if len(creates) != 1:
            raise MissingParam("invite_room_state does not hold the create event")
        try:
            create = Event.from_pdu(version, creates[0])
        except InvalidEvent as error:
            raise MissingParam(f"The create event is malformed: {error}") from None
        if create.room_id != room_id or not check_content_hash(version, create.pdu):
            raise MissingParam("The create event is that of another room")
        (outcome,) = await self._checks.check(version, room_id, [create.pdu])
        if isinstance(outcome, str):
            raise MissingParam(f"The create event cannot be accepted: {outcome}")


def _check_format(version: RoomVersion, pdu: Mapping[str, Any]) -> None:
    """Raise `BadJson` for a PDU that is not an event of the room version."""
    try:
        Event.from_pdu(version, pdu)
    except InvalidEvent as error:
        raise BadJson(f"The invite is malformed: {error}") from None
