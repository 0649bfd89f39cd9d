"""Memberships: joining, inviting, leaving, kicking, banning, knocking, forgetting.

The authorisation rules decide whether a change is allowed when the writer makes the event; this
module adds the requirements of the Client-Server API. Every change by a client is made here, also
one that is sent as a state event (`membership_state_events.py`).

Where a method takes `content`, that is the content written by the client, used instead of what the
server would set: the profile and the reason.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-membership
"""

from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.suspension import check_not_suspended
from homeserver.accounts.user_data.invite_permission import InvitePermission
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.protocol.client_events import STRIPPED_STATE_TYPES
from homeserver.protocol.errors import (
    BadState,
    Forbidden,
    GuestAccessForbidden,
    InvalidParam,
    NotFound,
    UnableToAuthoriseJoin,
    UnableToGrantJoin,
)
from homeserver.protocol.event_types import GUEST_ACCESS_KEY, MEMBER
from homeserver.protocol.identifiers import creating_server_hint, is_valid_user_id, server_name_of
from homeserver.rooms.events.event_draft import SERVER_FIELDS, MemberDraft, member_draft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.membership.member_profiles import MemberProfiles
from homeserver.rooms.membership.out_of_room_memberships import OutOfRoomMemberships
from homeserver.rooms.membership.remote_memberships import RemoteMembershipsPort
from homeserver.rooms.membership.restricted_joins import RestrictedJoins
from homeserver.rooms.membership.server_notice_rooms import ServerNoticeRooms
from homeserver.rooms.room.draft_senders import PolicyServerPort
from homeserver.rooms.room.preview import build_preview
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room, StateKey
from homeserver.rooms.room.user_rooms import NotLeft, RoomForgotten, UserRooms
from homeserver.storage.rooms.memberships import FORGET
from homeserver.storage.rooms.names import Names
from homeserver.streams.log import Log

INVITE_WAIT_SECONDS = 10.0
_SET_BY_SERVER = SERVER_FIELDS | {"membership", "displayname", "avatar_url"}


class Memberships:
    """Changes memberships on behalf of local users."""

    def __init__(
        self,
        log: Log,
        names: Names,
        rooms: RoomRegistry,
        user_rooms: UserRooms,
        profiles: MemberProfiles,
        permission: InvitePermission,
        receiver: PduReceiver,
        policy_servers: PolicyServerPort,
        notice_rooms: ServerNoticeRooms,
        out_of_room: OutOfRoomMemberships,
        remote: RemoteMembershipsPort,
    ) -> None:
        self._remote = remote
        self._receiver = receiver
        self._policy_servers = policy_servers
        self._restricted = RestrictedJoins(rooms)
        self._permission = permission
        self._notice_rooms = notice_rooms
        self._out_of_room = out_of_room
        self._log = log
        self._names = names
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._profiles = profiles
        self._inviting: KeyedLocks[tuple[str, str]] = KeyedLocks()  # by room and remote user

    async def join(
        self,
        caller: Requester,
        room_id: str,
        *,
        more: Mapping[str, Any] | None = None,
        servers: Sequence[str] = (),
        content: Mapping[str, Any] | None = None,
    ) -> StoredEvent:
        """Join a room; does nothing for a user who is joined already, unless there is `content`.

        `more` is added to the content of the member event, except for fields that the server sets.
        `servers` may be in the room, if this one is not.
        """
        room = await self._rooms.find(room_id)
        if room is not None and room.membership(caller.user_id) == "join":
            if content is None:
                return await self._member_event(room, caller.user_id)
            # A member needs no authorisation to stay in the room, whatever its join rule.
            check_not_suspended(caller)
            return await self._send(room_id, caller, caller.user_id, content)
        check_not_suspended(caller)
        is_here = room is not None and self._is_here(room)
        if caller.is_guest:
            if room is None or not is_here:
                raise GuestAccessForbidden("Guests may not join this room")
            await self._check_guests_may_join(room)
        if content is None:
            given = (more or {}).items()
            chosen = {key: value for key, value in given if key not in _SET_BY_SERVER}
            content = await self._content("join", caller.user_id, None) | chosen
        if room is None or not self._knows(room, caller.user_id):
            servers = await self._servers(caller.user_id, room_id, servers)
            return await self._remote.join(
                caller.user_id, room_id, servers, _without_server_fields(content)
            )
        try:
            authoriser = await self._restricted.authoriser(room, caller.user_id)
        except (Forbidden, UnableToAuthoriseJoin, UnableToGrantJoin) as error:
            others = self._others(room)
            if not others or isinstance(error, Forbidden):
                raise Forbidden(str(error)) from error
            # Another server may see or grant what this one cannot.
            return await self._remote.join(
                caller.user_id, room_id, others, _without_server_fields(content)
            )
        draft = member_draft(
            caller.user_id,
            caller.user_id,
            content,
            authoriser=authoriser,
            origin_server_ts=caller.event_ts,
        )
        return await self._send_draft(room_id, draft)

    async def knock(
        self,
        caller: Requester,
        room_id: str,
        *,
        reason: str | None = None,
        servers: Sequence[str] = (),
        content: Mapping[str, Any] | None = None,
    ) -> StoredEvent:
        """Knock on a room; `servers` may be in it, if this one is not."""
        check_not_suspended(caller)
        if content is None:
            content = await self._content("knock", caller.user_id, reason)
        room = await self._rooms.find(room_id)
        if room is None or not self._knows(room, caller.user_id):
            servers = await self._servers(caller.user_id, room_id, servers)
            return await self._remote.knock(
                caller.user_id, room_id, servers, _without_server_fields(content)
            )
        return await self._send(room_id, caller, caller.user_id, content)

    async def invite(
        self,
        caller: Requester,
        room_id: str,
        user_id: str,
        *,
        reason: str | None = None,
        is_direct: bool = False,
        content: Mapping[str, Any] | None = None,
    ) -> StoredEvent:
        """Invite a user. The server of a remote user has to agree, and may refuse."""
        await self._room_of_other(caller, room_id, user_id)
        await self._permission.check(user_id, caller.user_id, caller)
        if content is None and self._rooms.local_server.is_local(user_id):
            content = await self._content("invite", user_id, reason)
        elif content is None:
            content = _with_reason({"membership": "invite"}, reason)
        if is_direct:
            content = {**content, "is_direct": True}
        draft = member_draft(caller.user_id, user_id, content, origin_server_ts=caller.event_ts)
        return await self._invite(draft, room_id)

    async def issue_invite(self, draft: MemberDraft, room_id: str) -> StoredEvent:
        """Send an invite that the authorisation rules allow, to a local or remote user."""
        await self._permission.check(draft.state_key or "", draft.sender, draft.sender)
        return await self._invite(draft, room_id)

    async def _invite(self, draft: MemberDraft, room_id: str) -> StoredEvent:
        user_id = draft.state_key or ""
        if self._rooms.local_server.is_local(user_id):
            return await self._send_draft(room_id, draft)
        async with self._inviting.hold((room_id, user_id)):
            return await self._invite_remote(draft, room_id)

    async def wait_for_invite(self, room_id: str, user_id: str) -> None:
        """Wait for an invite in progress: the user's server knows it before it is stored here."""
        clock = self._rooms.local_server.clock
        await self._inviting.wait_until_free((room_id, user_id), INVITE_WAIT_SECONDS, clock)

    async def leave(
        self,
        caller: Requester,
        room_id: str,
        *,
        reason: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> StoredEvent:
        """Leave a room, reject an invite, or withdraw a knock; does nothing if the user has left
        already.

        Raises `CannotLeaveServerNoticeRoom` if an invite cannot be rejected.
        """
        room = await self._rooms.find(room_id)
        if room is not None:
            await self._notice_rooms.check_may_leave(room, caller.user_id)
        if room is not None and (left := await self._left_before(room, caller.user_id)):
            return left
        if content is None:
            content = _with_reason({"membership": "leave"}, reason)
        if room is not None and not self._knows(room, caller.user_id):
            return await self.leave_out_of_room(room, caller.user_id, content)
        return await self._send(room_id, caller, caller.user_id, content)

    async def _left_before(self, room: Room, user_id: str) -> StoredEvent | None:
        """The event by which a user left, if it is the latest."""
        place = (await self._user_rooms.of(user_id)).get(room.room_nid)
        if place is None or place.membership != "leave":
            return None
        return (await self._rooms.load_events(room, [place.event]))[place.event]

    async def is_out_of_room(self, room_id: str, user_id: str) -> bool:
        """Whether a user's membership in a room can be changed only through other servers."""
        room = await self._rooms.find(room_id)
        return room is not None and not self._knows(room, user_id)

    async def leave_out_of_room(
        self, room: Room, user_id: str, content: Mapping[str, Any]
    ) -> StoredEvent:
        """Reject an invite, or withdraw a knock, through a server that is in the room."""
        place = (await self._user_rooms.of(user_id)).get(room.room_nid)
        if place is None or place.membership not in ("invite", "knock"):
            raise Forbidden("You are not in the room")
        servers = await self._servers(user_id, room.room_id, ())
        return await self._remote.leave(
            user_id, room.room_id, servers, _without_server_fields(content)
        )

    async def kick(
        self,
        caller: Requester,
        room_id: str,
        user_id: str,
        *,
        reason: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> StoredEvent:
        """Make another user leave; raises `Forbidden` if they are not in the room."""
        room = await self._room_of_other(caller, room_id, user_id)
        if room.membership(user_id) not in ("join", "invite", "knock"):
            raise Forbidden(f"{user_id} is not in the room")
        content = content or _with_reason({"membership": "leave"}, reason)
        return await self._send(room_id, caller, user_id, content)

    async def ban(
        self,
        caller: Requester,
        room_id: str,
        user_id: str,
        *,
        reason: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> StoredEvent:
        """Ban a user, who leaves and cannot return."""
        await self._room_of_other(caller, room_id, user_id)
        content = content or _with_reason({"membership": "ban"}, reason)
        return await self._send(room_id, caller, user_id, content)

    async def unban(
        self,
        caller: Requester,
        room_id: str,
        user_id: str,
        *,
        reason: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> StoredEvent:
        """Allow a banned user to return; raises `BadState` if they are not banned."""
        room = await self._room_of_other(caller, room_id, user_id)
        if room.membership(user_id) != "ban":
            raise BadState(f"{user_id} is not banned")
        content = content or _with_reason({"membership": "leave"}, reason)
        return await self._send(room_id, caller, user_id, content)

    async def forget(self, caller: Requester, room_id: str) -> None:
        """Forget a room that was left. Raises `NotLeft` while the user is in it."""
        room = await self._rooms.get(room_id)
        place = (await self._user_rooms.of(caller.user_id)).get(room.room_nid)
        if place is None:
            raise NotFound("You were never in the room")
        if place.membership not in ("leave", "ban"):
            raise NotLeft("Leave the room before you forget it")
        member = await self._names.nid(caller.user_id)
        self._log.check_open()
        entry = RoomForgotten(self._log.next_position(), caller.user_id, room.room_nid)
        await self._log.append(entry, [FORGET.row(member, room.room_nid)])

    async def _content(self, membership: str, user_id: str, reason: str | None) -> dict[str, Any]:
        profile = await self._profiles.member_fields(user_id)
        return _with_reason({"membership": membership, **profile}, reason)

    def _is_here(self, room: Room) -> bool:
        """Whether no other server need be asked: this one is in the room, or was the last one in
        it.
        """
        if not room.joined_servers:
            is_whole = room.partial is None and not room.was_left_partial
            return bool(room.state) and is_whole
        return self._rooms.local_server.server_name in room.joined_servers

    def _knows(self, room: Room, user_id: str) -> bool:
        """Whether this server knows a user's membership in the room, and need not ask others.

        With partial state, a user without known membership may be banned.
        """
        return self._is_here(room) and (room.partial is None or user_id in room.members)

    def _others(self, room: Room) -> list[str]:
        """The other servers in the room, those with the most members first."""
        own = self._rooms.local_server.server_name
        first = () if room.partial is None else room.partial.servers
        most = [name for name, _ in room.joined_servers.most_common()]
        return [name for name in dict.fromkeys([*first, *most]) if name != own]

    async def _servers(self, user_id: str, room_id: str, named: Sequence[str]) -> list[str]:
        """Servers that may be in a room, the most likely first."""
        servers = list(named)
        room = await self._rooms.find(room_id)
        if room is not None:
            place = (await self._user_rooms.of(user_id)).get(room.room_nid)
            if place is not None and place.membership == "invite":
                servers.insert(0, server_name_of(place.sender))
            servers = await self._out_of_room.servers(room.room_nid, user_id) + servers
            servers += self._others(room)
        if (hint := creating_server_hint(room_id)) is not None:
            servers.append(hint)
        own = self._rooms.local_server.server_name
        return [name for name in dict.fromkeys(servers) if name != own]

    async def _invite_remote(self, draft: MemberDraft, room_id: str) -> StoredEvent:
        """Spec: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room"""
        async with self._rooms.writing(room_id) as writer:
            event = await build_preview(writer, draft)
            keys: list[StateKey] = [(event_type, "") for event_type in STRIPPED_STATE_TYPES]
            keys.append((MEMBER, draft.sender))
            state = await self._rooms.current(writer.room, keys)
            stripped = [stored.shown.pdu for stored in state.values()]
            event = await self._policy_servers.signed(writer, event)
            signed = await self._remote.sign_invite(event, stripped)
            return await self._receiver.receive_own(writer, signed)

    async def _send(
        self, room_id: str, caller: Requester, target: str, content: Mapping[str, Any]
    ) -> StoredEvent:
        draft = member_draft(caller.user_id, target, content, origin_server_ts=caller.event_ts)
        return await self._send_draft(room_id, draft)

    async def _send_draft(self, room_id: str, draft: MemberDraft) -> StoredEvent:
        async with self._rooms.writing(room_id) as writer:
            return await writer.send(draft)

    async def _member_event(self, room: Room, user_id: str) -> StoredEvent:
        key = (MEMBER, user_id)
        return (await self._rooms.current(room, [key]))[key]

    async def _room_of_other(self, caller: Requester, room_id: str, user_id: str) -> Room:
        """The room in which the caller acts on another user, whose membership is then known."""
        check_not_suspended(caller)
        if not is_valid_user_id(user_id):
            raise InvalidParam(f"{user_id!r} is not a user id")
        room = await self._rooms.get(room_id)
        await room.wait_for_full_state(self._rooms.local_server.clock, user_id)
        return room

    async def _check_guests_may_join(self, room: Room) -> None:
        """Spec: https://spec.matrix.org/v1.19/client-server-api/#guest-access"""
        state = await self._rooms.current(room, [GUEST_ACCESS_KEY])
        access = state.get(GUEST_ACCESS_KEY)
        if access is None or access.event.content.get("guest_access") != "can_join":
            raise GuestAccessForbidden("Guests may not join this room")


def _with_reason(content: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return content if reason is None else {**content, "reason": reason}


def _without_server_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content for another server, which would treat those fields as vouched for by this one."""
    return {key: value for key, value in content.items() if key not in SERVER_FIELDS}
