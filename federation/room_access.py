"""What another server may ask of a room: whether it is in it, and let in at all.

Spec: https://spec.matrix.org/v1.19/server-server-api/#server-access-control-lists-acls
"""

from federation.bounded_cache import BoundedCache
from homeserver.protocol.errors import Forbidden, NotFound, UnableDueToPartialState
from homeserver.protocol.server_acl import ServerAcl
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms

ACL = ("m.room.server_acl", "")
CACHED_LISTS = 200  # each takes 2 MiB at most, where an event is full of entries


class RoomAccess:
    """Guards rooms against servers."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._lists: BoundedCache[int, ServerAcl] = BoundedCache(CACHED_LISTS)  # by event number

    async def present(self, origin: str, room_id: str) -> Room:
        """The room, if this server is in it and its access list lets the other take part.

        Raises `NotFound` and `Forbidden`.
        """
        room = await self._rooms.find(room_id)
        if room is None or self._rooms.origin.server_name not in room.joined_servers:
            raise NotFound("This server is not in the room")
        if not await self.is_allowed(origin, room):
            raise Forbidden("The room's access list keeps your server out")
        return room

    async def whole(self, origin: str, room_id: str) -> Room:
        """The same, for what can only be answered by one who knows all members.

        Raises `UnableDueToPartialState`.
        """
        room = await self.present(origin, room_id)
        if room.partial is not None:
            raise UnableDueToPartialState("This server has only just joined; ask another one")
        return room

    async def shared(self, origin: str, room_id: str) -> Room:
        """The same, for what only servers may ask that are in the room themselves."""
        room = await self.present(origin, room_id)
        if origin not in room.servers:
            raise Forbidden("Your server is not in the room")
        return room

    async def is_allowed(self, origin: str, room: Room) -> bool:
        """Whether the room's access list lets a server take part."""
        if ACL not in room.state:
            return True
        acl = (await self._rooms.current(room, [ACL])).get(ACL)
        if acl is None:
            return True
        # A redaction changes what the list says; the number of the event stays.
        key = acl.number if acl.redaction is None else -acl.number
        known = self._lists.get(key)
        if known is None:
            known = ServerAcl(acl.shown.content)
            self._lists.put(key, known)
        return known.is_allowed(origin)
