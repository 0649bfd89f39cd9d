"""Blocked rooms: an operator has deleted them, and no local user joins them by another server."""

from homeserver.protocol.errors import Forbidden
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.storage.database.database import Database
from homeserver.storage.retention.blocked_rooms import is_blocked


class BlockedRooms:
    """The check at the doors by which this server enters rooms: joins, knocks and invites."""

    def __init__(self, db: Database, rooms: RoomRegistry) -> None:
        self._db = db
        self._rooms = rooms

    async def check(self, room_id: str) -> None:
        """Raise `Forbidden` if a room is blocked, or was deleted since the start."""
        is_retired = await self._rooms.is_retired(room_id)
        if is_retired or await self._db.run(is_blocked, room_id):
            raise Forbidden("This server does not take part in the room")
