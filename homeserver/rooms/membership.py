"""Membership: joining, inviting, leaving, kicking, banning, knocking, forgetting.

Whether a change is allowed is decided by the authorisation rules when the writer makes the event;
here stands what the Client-Server API asks beyond them.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-membership
"""

from collections.abc import Mapping
from typing import Any

from homeserver.accounts.caller import Caller
from homeserver.accounts.invite_permission import InvitePermission
from homeserver.accounts.suspension import check_not_suspended
from homeserver.protocol.auth_state import AuthState
from homeserver.protocol.errors import (
    BadState,
    Forbidden,
    GuestAccessForbidden,
    InvalidParam,
    NotFound,
)
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.rooms.creation import MemberProfiles
from homeserver.rooms.drafts import Draft
from homeserver.rooms.room import Room, StateKey
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.stored_event import StoredEvent
from homeserver.rooms.user_rooms import RoomForgotten, UserRooms
from homeserver.storage.memberships import FORGET

_GUEST_ACCESS = ("m.room.guest_access", "")
_JOIN_RULES = ("m.room.join_rules", "")
_CREATE = ("m.room.create", "")
_POWER_LEVELS = ("m.room.power_levels", "")
_OF_THE_SERVER = {
    "membership",
    "displayname",
    "avatar_url",
    "join_authorised_via_users_server",
    "third_party_invite",
}


class Memberships:
    """Changes who is in a room, on behalf of this server's users."""

    def __init__(
        self,
        rooms: Rooms,
        user_rooms: UserRooms,
        profiles: MemberProfiles,
        permission: InvitePermission,
    ) -> None:
        self._permission = permission
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._profiles = profiles

    async def join(
        self,
        caller: Caller,
        room_id: str,
        *,
        third_party_signed: dict[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Join a room that this server is in; does nothing for a user who is joined already.

        `more` goes into the content of the member event, but for what the server puts there.
        """
        room = await self._rooms.get(room_id)
        if room.membership(caller.user_id) == "join":
            return
        check_not_suspended(caller)
        if caller.is_guest:
            await self._check_guests_may_join(room)
        content = await self._content("join", caller.user_id, None)
        chosen = {key: value for key, value in (more or {}).items() if key not in _OF_THE_SERVER}
        content |= chosen
        if third_party_signed is not None:
            content["third_party_invite"] = {"signed": third_party_signed}
        authoriser = await self._find_authoriser(room, caller.user_id)
        if authoriser is not None:
            content["join_authorised_via_users_server"] = authoriser
        await self._send(room_id, caller.user_id, caller.user_id, content)

    async def knock(self, caller: Caller, room_id: str, *, reason: str | None = None) -> None:
        """Ask to be let into a room."""
        check_not_suspended(caller)
        content = await self._content("knock", caller.user_id, reason)
        await self._send(room_id, caller.user_id, caller.user_id, content)

    async def invite(
        self, caller: Caller, room_id: str, user_id: str, *, reason: str | None = None
    ) -> None:
        """Invite a user of this server."""
        check_not_suspended(caller)
        self._check_user_id(user_id)
        if not self._rooms.origin.is_ours(user_id):
            raise Forbidden(f"{user_id} is on another server, and this one does not federate")
        await self._permission.check(user_id)
        content = await self._content("invite", user_id, reason)
        await self._send(room_id, caller.user_id, user_id, content)

    async def leave(self, caller: Caller, room_id: str, *, reason: str | None = None) -> None:
        """Leave a room, turn down an invite, or take back a knock."""
        content = _with_reason({"membership": "leave"}, reason)
        await self._send(room_id, caller.user_id, caller.user_id, content)

    async def kick(
        self, caller: Caller, room_id: str, user_id: str, *, reason: str | None = None
    ) -> None:
        """Make another user leave; raises `Forbidden` if they are not in the room."""
        check_not_suspended(caller)
        self._check_user_id(user_id)
        room = await self._rooms.get(room_id)
        if room.membership(user_id) not in ("join", "invite", "knock"):
            raise Forbidden(f"{user_id} is not in the room")
        content = _with_reason({"membership": "leave"}, reason)
        await self._send(room_id, caller.user_id, user_id, content)

    async def ban(
        self, caller: Caller, room_id: str, user_id: str, *, reason: str | None = None
    ) -> None:
        """Make a user leave, and keep them out."""
        check_not_suspended(caller)
        self._check_user_id(user_id)
        content = _with_reason({"membership": "ban"}, reason)
        await self._send(room_id, caller.user_id, user_id, content)

    async def unban(
        self, caller: Caller, room_id: str, user_id: str, *, reason: str | None = None
    ) -> None:
        """Let a banned user come back; raises `BadState` if they are not banned."""
        check_not_suspended(caller)
        self._check_user_id(user_id)
        room = await self._rooms.get(room_id)
        if room.membership(user_id) != "ban":
            raise BadState(f"{user_id} is not banned")
        content = _with_reason({"membership": "leave"}, reason)
        await self._send(room_id, caller.user_id, user_id, content)

    async def forget(self, caller: Caller, room_id: str) -> None:
        """Hear no more of a room that was left. Raises `InvalidParam` while the user is in it."""
        room = await self._rooms.get(room_id)
        place = (await self._user_rooms.of(caller.user_id)).get(room.number)
        if place is None:
            raise NotFound("You were never in the room")
        if place.membership not in ("leave", "ban"):
            raise InvalidParam("Leave the room before you forget it")
        member = await self._rooms.stores.names.nid(caller.user_id)
        log = self._rooms.stores.log
        log.check_open()
        fact = RoomForgotten(log.next_position(), caller.user_id, room.number)
        await log.append(fact, [FORGET.row(member, room.number)])

    async def _content(self, membership: str, user_id: str, reason: str | None) -> dict[str, Any]:
        profile = await self._profiles.member_fields(user_id)
        return _with_reason({"membership": membership, **profile}, reason)

    async def _send(
        self, room_id: str, sender: str, target: str, content: dict[str, Any]
    ) -> StoredEvent:
        async with self._rooms.writing(room_id) as writer:
            return await writer.send(Draft("m.room.member", sender, content, state_key=target))

    async def _check_guests_may_join(self, room: Room) -> None:
        """Spec: https://spec.matrix.org/v1.19/client-server-api/#guest-access"""
        state = await self._rooms.current(room, [_GUEST_ACCESS])
        access = state.get(_GUEST_ACCESS)
        if access is None or access.event.content.get("guest_access") != "can_join":
            raise GuestAccessForbidden("Guests may not join this room")

    async def _find_authoriser(self, room: Room, user_id: str) -> str | None:
        """A user of ours by whose right the room is joined, if its join rule is a restricted one.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
        """
        state = await self._rooms.current(room, [_CREATE, _POWER_LEVELS, _JOIN_RULES])
        rules = state.get(_JOIN_RULES)
        if rules is None or room.membership(user_id) == "invite":
            return None
        rule = rules.event.content.get("join_rule")
        restricted = (rule == "restricted" and room.version.restricted_joins) or (
            rule == "knock_restricted" and room.version.knock_restricted
        )
        if not restricted:
            return None
        if not await self._meets_condition(user_id, rules.event.content.get("allow")):
            raise Forbidden("You are in none of the rooms whose members may join this one")
        events: dict[StateKey, Any] = {key: stored.event for key, stored in state.items()}
        levels = AuthState(events).power_levels
        candidates = [
            member
            for member in room.joined_members()
            if self._rooms.origin.is_ours(member) and levels.of(member) >= levels.invite
        ]
        if not candidates:
            raise Forbidden("Nobody on this server can let you into the room")
        return max(candidates, key=levels.of)

    async def _meets_condition(self, user_id: str, allow: object) -> bool:
        for condition in allow if isinstance(allow, list) else []:
            if not isinstance(condition, dict) or condition.get("type") != "m.room_membership":
                continue
            room_id = condition.get("room_id")
            if isinstance(room_id, str):
                room = await self._rooms.find(room_id)
                if room is not None and room.membership(user_id) == "join":
                    return True
        return False

    def _check_user_id(self, user_id: str) -> None:
        if not is_valid_user_id(user_id):
            raise InvalidParam(f"{user_id!r} is not a user id")


def _with_reason(content: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return content if reason is None else {**content, "reason": reason}
