"""Member events that clients send as state, with content of their own.

A client may change a membership by its endpoint, such as `/join`, or by sending the member event as
any other state, over any transport. Both do the same: `Memberships` makes the change, with all its
checks, and the client's own content, such as a name for this one room, becomes that of the event.
No other code can send a member event, since the room's writer requires a `MemberDraft`.

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
    """Makes the membership change in a member event's content, within the rate limits of the
    change.
    """

    def __init__(
        self, rooms: RoomRegistry, memberships: Memberships, rate_limits: RateLimits
    ) -> None:
        self._rooms = rooms
        self._memberships = memberships
        self._rate_limits = rate_limits

    async def apply(
        self, caller: Requester, room_id: str, target: str, content: dict[str, Any]
    ) -> StoredEvent:
        """Change the membership of `target`; returns the member event, also if nothing changed.

        Raises `BadJson` for an unknown membership, `InvalidParam` for a target that is not a user
        id, `LimitExceeded`, and what the method of `Memberships` raises.
        """
        membership = content.get("membership")
        if membership not in MEMBERSHIPS:
            raise BadJson(f"membership must be one of {', '.join(MEMBERSHIPS)}")
        if not is_valid_user_id(target):
            raise InvalidParam("The state key of a member event is a user id")
        is_own = target == caller.user_id
        if caller.is_guest and not (is_own and membership in ("join", "leave")):
            raise GuestAccessForbidden("Guests can change only their own membership")
        if not is_own and membership in ("join", "knock"):
            raise Forbidden("You can join or knock only for yourself")
        unchanged = await self._unchanged(caller, room_id, target, content)
        if unchanged is not None:
            return unchanged
        await self._count(caller, room_id, content)
        if is_own and membership in ("join", "knock", "leave"):
            return await self._change_own(caller, room_id, content)
        return await self._change_other(caller, room_id, target, content)

    async def _count(self, caller: Requester, room_id: str, content: dict[str, Any]) -> None:
        """Count against the join limit; a joined member with a new name does not join."""
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
        """The member event, if this request was made before: a client that got no response repeats
        it.
        """
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
