"""Memberships that are set as state: the door for member events whose content a client writes.

A client may change a membership by an endpoint for it, such as `/join`, or by sending the member
event as any other state, by whichever transport. The second is the first under another name: what
the content says is done by `Memberships`, with all that it asks, and the client's own content, such
as a name for this one room, becomes that of the event. Nothing else can send a member event, since
the room's writer wants a `MemberDraft`.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-membership
"""

from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import BadJson, Forbidden, GuestAccessForbidden, InvalidParam
from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.membership.memberships import Memberships
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.web.rate_limits import RateLimits

MEMBERSHIPS = ("join", "invite", "leave", "ban", "knock")


class MembershipStateEvents:
    """Does what the content of a member event says, within the rate limits of what it does."""

    def __init__(
        self, rooms: RoomRegistry, memberships: Memberships, rate_limits: RateLimits
    ) -> None:
        self._rooms = rooms
        self._memberships = memberships
        self._rate_limits = rate_limits

    async def apply(
        self, caller: Requester, room_id: str, target: str, content: dict[str, Any]
    ) -> StoredEvent:
        """Change the membership of `target`; gives the member event, also where it was so already.

        Raises `BadJson` for a membership that is none, `InvalidParam` for a target that is no user
        id, `LimitExceeded`, and what the method of `Memberships` raises.
        """
        membership = content.get("membership")
        if membership not in MEMBERSHIPS:
            raise BadJson(f"membership is none of {', '.join(MEMBERSHIPS)}")
        if not is_valid_user_id(target):
            raise InvalidParam("The state key of a member event is a user id")
        is_own = target == caller.user_id
        if caller.is_guest and not (is_own and membership in ("join", "leave")):
            raise GuestAccessForbidden("Guests change no membership but their own")
        if not is_own and membership in ("join", "knock"):
            raise Forbidden("Nobody joins or knocks for somebody else")
        unchanged = await self._unchanged(caller, room_id, target, content)
        if unchanged is not None:
            return unchanged
        await self._count(caller, room_id, content)
        if is_own and membership in ("join", "knock", "leave"):
            return await self._change_own(caller, room_id, content)
        return await self._change_other(caller, room_id, target, content)

    async def _count(self, caller: Requester, room_id: str, content: dict[str, Any]) -> None:
        """Count what has a limit of its own; a member with a new name joins nothing."""
        if content["membership"] == "invite":
            self._rate_limits.check("invite", caller)
        elif content["membership"] in ("join", "knock"):
            room = await self._rooms.find(room_id)
            if room is None or room.membership(caller.user_id) != "join":
                self._rate_limits.check("join", caller)

    async def _change_own(
        self, caller: Requester, room_id: str, content: dict[str, Any]
    ) -> StoredEvent:
        if content["membership"] == "join":
            return await self._memberships.join(caller, room_id, content=content)
        if content["membership"] == "knock":
            return await self._memberships.knock(caller, room_id, content=content)
        return await self._memberships.leave(caller, room_id, content=content)

    async def _change_other(
        self, caller: Requester, room_id: str, target: str, content: dict[str, Any]
    ) -> StoredEvent:
        if content["membership"] == "invite":
            return await self._memberships.invite(caller, room_id, target, content=content)
        if content["membership"] == "ban":
            return await self._memberships.ban(caller, room_id, target, content=content)
        room = await self._rooms.get(room_id)
        await room.wait_for_full_state(self._rooms.local_server.clock, target)
        if room.membership(target) == "ban":
            return await self._memberships.unban(caller, room_id, target, content=content)
        return await self._memberships.kick(caller, room_id, target, content=content)

    async def _unchanged(
        self, caller: Requester, room_id: str, target: str, content: dict[str, Any]
    ) -> StoredEvent | None:
        """The member event, if this request has made it already: a client that got no answer."""
        room = await self._rooms.find(room_id)
        if room is None:
            return None
        key = (MEMBER, target)
        current = (await self._rooms.current(room, [key])).get(key)
        if (
            current is None
            or current.redaction is not None
            or current.event.sender != caller.user_id
            or current.event.content != content
        ):
            return None
        return current
