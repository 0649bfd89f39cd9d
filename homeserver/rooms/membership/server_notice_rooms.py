"""Rooms of server notices: an invite to one cannot be turned down.

Spec: https://spec.matrix.org/v1.19/client-server-api/#server-notices
"""

from homeserver.protocol.errors import CannotLeaveServerNoticeRoom
from homeserver.protocol.event_types import MEMBER
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room


class ServerNoticeRooms:
    """Knows them by whom they come from: `sender` is `None` where there are no notices."""

    def __init__(self, rooms: RoomRegistry, sender: str | None) -> None:
        self._rooms = rooms
        self._sender = sender

    async def check_may_leave(self, room: Room, user_id: str) -> None:
        """Raise `CannotLeaveServerNoticeRoom` for somebody who has not joined yet."""
        if self._sender is None or room.membership(user_id) != "invite":
            return
        key = (MEMBER, user_id)
        member = (await self._rooms.current(room, [key])).get(key)
        if member is not None and member.event.sender == self._sender:
            raise CannotLeaveServerNoticeRoom("Join the room to read what the server has to say")
