"""Forced leaves: users whom the server removes from their rooms, as at deactivation.

Each one leaves by a member event of their own: joined rooms are left, invites rejected and knocks
withdrawn, for remote rooms through the servers that the invites or knocks are of.

Spec: https://spec.matrix.org/v1.19/client-server-api/#account-deactivation
"""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.logger import Logger

from homeserver.protocol.errors import MatrixError, Unavailable
from homeserver.rooms.events.event_draft import EventDraft, member_draft
from homeserver.rooms.membership.memberships import Memberships
from homeserver.rooms.membership.server_state_changes import change_state
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.rooms.room.writer import RoomWriter

PRESENT = ("join", "invite", "knock")
LEAVE = {"membership": "leave"}
MAX_CONCURRENT_LEAVES = 10  # remote rooms that are left at the same time
log = Logger()


class ForcedLeaves:
    """Removes users from rooms."""

    def __init__(
        self, rooms: RoomRegistry, user_rooms: UserRooms, memberships: Memberships
    ) -> None:
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._memberships = memberships

    async def deactivated(self, user_id: str, erase: bool) -> None:
        """Remove the user of a deactivated account from all rooms, as `leave_all`."""
        await self.leave_all(user_id)

    async def leave_all(self, user_id: str) -> None:
        """Remove a user from all rooms: one after the other, where no other server is needed.

        A room whose rules forbid it is skipped. Raises `Unavailable` while events cannot be stored;
        it does no harm to begin again.
        """
        places = await self._user_rooms.of(user_id)
        room_nids = [room_nid for room_nid, place in places.items() if place.membership in PRESENT]
        remote = []
        for room_id in await self._rooms.room_ids(room_nids):
            if await self._memberships.is_out_of_room(room_id, user_id):
                remote.append(room_id)
            else:
                await self.leave(room_id, user_id)
        await self._leave_remote(remote, user_id)

    async def leave(self, room_id: str, user_id: str) -> None:
        """Remove a user from one room, if they are in it; otherwise as `leave_all`."""

        def decide(writer: RoomWriter) -> EventDraft | None:
            if writer.membership(user_id) not in PRESENT:
                return None
            return member_draft(user_id, user_id, LEAVE)

        try:
            room = await self._rooms.find(room_id)
            if room is not None and await self._memberships.is_out_of_room(room_id, user_id):
                await self._memberships.leave_out_of_room(room, user_id, LEAVE)
            else:
                await change_state(self._rooms, room_id, decide)
        except Unavailable:
            raise
        except MatrixError as error:
            log.warn(
                "{user_id} could not leave {room_id}: {error}",
                user_id=user_id,
                room_id=room_id,
                error=error,
            )

    async def _leave_remote(self, room_ids: Sequence[str], user_id: str) -> None:
        """Leave rooms through other servers, some of which may take long to respond."""
        free = DeferredSemaphore(MAX_CONCURRENT_LEAVES)

        def leave(room_id: str) -> Deferred[None]:
            return Deferred.fromCoroutine(self.leave(room_id, user_id))

        leaving = [free.run(leave, room_id) for room_id in room_ids]
        results: list[tuple[bool, Any]] = await DeferredList(leaving, consumeErrors=True)
        for succeeded, failure in results:
            if not succeeded:
                failure.raiseException()
