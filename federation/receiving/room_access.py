"""What another server may ask of a room: whether it is in it, and let in at all.

Spec: https://spec.matrix.org/v1.19/server-server-api/#server-access-control-lists-acls
"""

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import Forbidden, NotFound, UnableDueToPartialState
from homeserver.protocol.event_types import SERVER_ACL_KEY
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.protocol.server_acl import ServerAcl
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room

MAX_TRUSTED_USERS = 1_000  # users of a room whose members are not known yet
MAX_PARTIAL_ROOMS = 1_000  # in which such users are remembered

CACHED_LISTS = 50  # each takes 2 MiB at most, where an event is full of entries


class RoomAccess:
    """Guards rooms against servers."""

    def __init__(self, rooms: RoomRegistry) -> None:
        self._rooms = rooms
        self._lists: LruCache[int, ServerAcl] = LruCache(
            "server_acls", CACHED_LISTS
        )  # by event number
        # Users that are not known yet, by room.
        self._trusted: LruCache[int, set[str]] = LruCache("partial_room_users", MAX_PARTIAL_ROOMS)

    async def present(self, origin: str, room_id: str) -> Room:
        """The room, if this server is in it and its access list lets the other take part.

        Raises `NotFound` and `Forbidden`.
        """
        room = await self._rooms.find(room_id)
        if room is None or self._rooms.local_server.server_name not in room.joined_servers:
            raise NotFound("This server is not in the room")
        if not await self.is_allowed(origin, room):
            raise Forbidden("The room's access list keeps your server out")
        return room

    async def shared_with_full_state(self, origin: str, room_id: str) -> Room:
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

    def speaks_for(self, origin: str, user_id: str, room: Room) -> bool:
        """Whether a server may tell what a user does in a room: one of its own who is in it.

        While the members of the room are still being fetched, those of servers that are in it are
        believed to be there, up to some number.
        """
        if not is_valid_user_id(user_id) or user_id.partition(":")[2] != origin:
            return False
        membership = room.membership(user_id)
        if room.partial is None:
            self._trusted.pop(room.room_nid)
        elif membership is None and origin in room.servers:
            believed = self._trusted.get(room.room_nid)
            if believed is None:
                believed = set()
                self._trusted.put(room.room_nid, believed)
            if user_id in believed or len(believed) < MAX_TRUSTED_USERS:
                believed.add(user_id)
                return True
        return membership == "join"

    async def is_allowed(self, origin: str, room: Room) -> bool:
        """Whether the room's access list lets a server take part."""
        if SERVER_ACL_KEY not in room.state:
            return True
        acl = (await self._rooms.current(room, [SERVER_ACL_KEY])).get(SERVER_ACL_KEY)
        if acl is None:
            return True
        # A redaction changes what the list says; the number of the event stays.
        key = acl.event_nid if acl.redaction is None else -acl.event_nid
        known = self._lists.get(key)
        if known is None:
            known = ServerAcl(acl.shown.content)
            self._lists.put(key, known)
        return known.is_allowed(origin)
