"""Membership requests of other servers: their users join, knock and leave through this one.

Other servers cannot join a room through this one while its state is partial.

Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from typing import Any

import msgspec

from federation.api.auth_chains import AuthChains
from federation.paths import V1, V2
from federation.receiving.pdu_checks import PduChecks
from federation.receiving.room_access import RoomAccess
from homeserver.protocol.authorization.auth_types import AUTHORISING_USER
from homeserver.protocol.client_events import STRIPPED_STATE_TYPES
from homeserver.protocol.errors import (
    BadJson,
    Forbidden,
    IncompatibleRoomVersion,
    InvalidParam,
    UnableToAuthoriseJoin,
)
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.events import Event, InvalidEvent
from homeserver.protocol.identifiers import server_name_of
from homeserver.rooms.events.event_draft import member_draft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.inbound.event_checks import EventsMissing
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.membership.memberships import Memberships
from homeserver.rooms.membership.restricted_joins import RestrictedJoins
from homeserver.rooms.room.preview import build_preview
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room, StateKey
from homeserver.web.routes import Auth, Route

_NOT_IN_TEMPLATES = ("hashes", "signatures", "event_id")


class Versions(msgspec.Struct):
    """The room versions that the requesting server supports."""

    ver: list[str] = msgspec.field(default_factory=lambda: ["1"])


class SendJoin(msgspec.Struct):
    """Whether the requesting server can do without the members for now."""

    omit_members: bool = False


class MembershipApi:
    def __init__(
        self,
        rooms: RoomRegistry,
        receiver: PduReceiver,
        checks: PduChecks,
        access: RoomAccess,
        chains: AuthChains,
        restricted: RestrictedJoins,
        memberships: Memberships,
    ) -> None:
        self._rooms = rooms
        self._local_server = rooms.local_server
        self._receiver = receiver
        self._checks = checks
        self._access = access
        self._chains = chains
        self._restricted = restricted
        self._memberships = memberships

    def routes(self) -> list[Route]:
        make, event = "/{room_id}/{user_id}", "/{room_id}/{event_id}"
        return [
            Route("GET", f"{V1}/make_join{make}", self.make_join, Auth.SERVER),
            Route("PUT", f"{V1}/send_join{event}", self.send_join_v1, Auth.SERVER),
            Route("PUT", f"{V2}/send_join{event}", self.send_join_v2, Auth.SERVER),
            Route("GET", f"{V1}/make_knock{make}", self.make_knock, Auth.SERVER),
            Route("PUT", f"{V1}/send_knock{event}", self.send_knock, Auth.SERVER),
            Route("GET", f"{V1}/make_leave{make}", self.make_leave, Auth.SERVER),
            Route("PUT", f"{V1}/send_leave{event}", self.send_leave_v1, Auth.SERVER),
            Route("PUT", f"{V2}/send_leave{event}", self.send_leave_v2, Auth.SERVER),
        ]

    async def make_join(
        self, origin: str, room_id: str, user_id: str, query: Versions
    ) -> dict[str, Any]:
        """A template of the event by which a user of the requesting server joins."""
        room = await self._access.shared_with_full_state(origin, room_id)
        _check_version(room, query.ver)
        await self._memberships.wait_for_invite(room_id, user_id)
        authoriser = await self._restricted.authoriser(room, user_id)
        return await self._template(origin, room, user_id, "join", authoriser)

    async def send_join_v1(
        self, origin: str, room_id: str, event_id: str, body: dict[str, Any]
    ) -> list[Any]:
        """Receive a join; the response has the form of v1."""
        return [200, await self._send_join(origin, room_id, event_id, body, omit_members=False)]

    async def send_join_v2(
        self, origin: str, room_id: str, event_id: str, body: dict[str, Any], query: SendJoin
    ) -> dict[str, Any]:
        """Receive a join, and return the state before it with its auth chain."""
        return await self._send_join(
            origin, room_id, event_id, body, omit_members=query.omit_members
        )

    async def make_knock(
        self, origin: str, room_id: str, user_id: str, query: Versions
    ) -> dict[str, Any]:
        """A template of the event by which a user of the requesting server knocks."""
        room = await self._access.shared_with_full_state(origin, room_id)
        _check_version(room, query.ver)
        return await self._template(origin, room, user_id, "knock")

    async def send_knock(
        self, origin: str, room_id: str, event_id: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        """Receive a knock, and return the stripped state of the room."""
        room = await self._access.shared_with_full_state(origin, room_id)
        await self._receive(origin, room, event_id, body, "knock")
        keys: list[StateKey] = [(event_type, "") for event_type in STRIPPED_STATE_TYPES]
        state = await self._rooms.current(room, keys)
        return {"knock_room_state": [msgspec.Raw(each.shown.json) for each in state.values()]}

    async def make_leave(self, origin: str, room_id: str, user_id: str) -> dict[str, Any]:
        """A template of the event by which a user rejects an invite, or withdraws a knock."""
        room = await self._access.shared_with_full_state(origin, room_id)
        await self._memberships.wait_for_invite(room_id, user_id)
        return await self._template(origin, room, user_id, "leave")

    async def send_leave_v1(
        self, origin: str, room_id: str, event_id: str, body: dict[str, Any]
    ) -> list[Any]:
        """Receive a leave; the response has the form of v1."""
        return [200, await self.send_leave_v2(origin, room_id, event_id, body)]

    async def send_leave_v2(
        self, origin: str, room_id: str, event_id: str, body: dict[str, Any]
    ) -> dict[str, Any]:
        """Receive a leave."""
        room = await self._access.shared_with_full_state(origin, room_id)
        await self._receive(origin, room, event_id, body, "leave")
        return {}

    async def _send_join(
        self,
        origin: str,
        room_id: str,
        event_id: str,
        body: dict[str, Any],
        *,
        omit_members: bool,
    ) -> dict[str, Any]:
        room = await self._access.shared_with_full_state(origin, room_id)
        stored = await self._receive(origin, room, event_id, body, "join")
        return await self._chains.join_response(room, stored, omit_members=omit_members)

    async def _template(
        self,
        origin: str,
        room: Room,
        user_id: str,
        membership: str,
        authoriser: str | None = None,
    ) -> dict[str, Any]:
        if server_name_of(user_id) != origin:
            raise Forbidden("The user does not belong to your server")
        content = {"membership": membership}
        draft = member_draft(user_id, user_id, content, authoriser=authoriser)
        async with self._rooms.writing(room.room_id) as writer:
            event = await build_preview(writer, draft, signers=(origin,))
        pdu = {key: value for key, value in event.pdu.items() if key not in _NOT_IN_TEMPLATES}
        # No event has it any more, but the specification requires it of templates.
        pdu["origin"] = self._local_server.server_name
        return {"event": pdu, "room_version": room.version.identifier}

    async def _receive(
        self, origin: str, room: Room, event_id: str, pdu: dict[str, Any], membership: str
    ) -> StoredEvent:
        """Check and receive the event of a membership request; it is sent to the other servers."""
        event = _parse(room, event_id, pdu, membership)
        if event.sender_server != origin:
            raise Forbidden("The user does not belong to your server")
        event = await self._with_own_signature(room, event)
        (outcome,) = await self._checks.check(room.version, room.room_id, [event.pdu])
        if isinstance(outcome, str):
            raise Forbidden(f"The event cannot be accepted: {outcome}")
        async with self._rooms.writing(room.room_id) as writer:
            try:
                received = await self._receiver.receive(writer, outcome, should_send=True)
            except EventsMissing as missing:
                raise InvalidParam(f"The event refers to unknown events: {missing}") from None
        if received.done is not None:
            await received.done
        status = received.stored.status
        if status.rejected is not None or status.soft_failed is not None:
            raise Forbidden(f"The room does not allow it: {status.rejected or status.soft_failed}")
        return received.stored

    async def _with_own_signature(self, room: Room, event: Event) -> Event:
        """A restricted join, signed by this server if it names a local user as authoriser."""
        via = event.content.get(AUTHORISING_USER)
        if (
            event.content.get("membership") != "join"
            or not room.version.restricted_joins
            or not isinstance(via, str)
            or not self._local_server.is_local(via)
        ):
            return event
        if await self._restricted.authoriser(room, event.sender) is None:
            raise UnableToAuthoriseJoin("The room does not admit members of other rooms any more")
        key = self._local_server.key
        return event.with_signature(
            self._local_server.server_name, key.key_id, key.sign(event.signing_bytes())
        )


def _check_version(room: Room, known: list[str]) -> None:
    if room.version.identifier not in known:
        raise IncompatibleRoomVersion(
            "Your server does not know the version of the room",
            room_version=room.version.identifier,
        )


def _parse(room: Room, event_id: str, pdu: dict[str, Any], membership: str) -> Event:
    if not pdu.get("signatures") or not pdu.get("hashes"):
        raise Forbidden("The event is not signed")
    try:
        event = Event.from_pdu(room.version, pdu)
    except InvalidEvent as error:
        raise BadJson(f"The event is malformed: {error}") from None
    if (
        event.room_id != room.room_id
        or event.event_id != event_id
        or not is_member_event(event, event.sender)
        or event.content.get("membership") != membership
    ):
        raise InvalidParam(f"The event is not a {membership} of this room, or has another id")
    return event
