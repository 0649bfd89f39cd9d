"""Departures: users who are taken out of their rooms by the server, as at deactivation.

Each one leaves by a member event of their own: joined rooms are left, invites turned down and
knocks taken back.

Spec: https://spec.matrix.org/v1.19/client-server-api/#account-deactivation
"""

from twisted.logger import Logger

from homeserver.protocol.errors import MatrixError, Unavailable
from homeserver.rooms.drafts import Draft, member_draft
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.state_changes import change_state
from homeserver.rooms.user_rooms import UserRooms
from homeserver.rooms.writer import RoomWriter

PRESENT = ("join", "invite", "knock")
log = Logger()


class Departures:
    """Makes users leave."""

    def __init__(self, rooms: Rooms, user_rooms: UserRooms) -> None:
        self._rooms = rooms
        self._user_rooms = user_rooms

    async def deactivated(self, user_id: str, erase: bool) -> None:
        """An account was closed: as `leave_all`."""
        await self.leave_all(user_id)

    async def leave_all(self, user_id: str) -> None:
        """Take a user out of all rooms, one after the other.

        A room that refuses is passed over. Raises `Unavailable` where events cannot be stored just
        now; it does no harm to begin again.
        """
        places = await self._user_rooms.of(user_id)
        numbers = [number for number, place in places.items() if place.membership in PRESENT]
        for room_id in (await self._rooms.stores.names.names(numbers)).values():
            await self.leave(room_id, user_id)

    async def leave(self, room_id: str, user_id: str) -> None:
        """Take a user out of one room, if they are in it; otherwise as `leave_all`."""

        def decide(writer: RoomWriter) -> Draft | None:
            if writer.membership(user_id) not in PRESENT:
                return None
            return member_draft(user_id, user_id, {"membership": "leave"})

        try:
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
