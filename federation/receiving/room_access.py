"""Access of other servers to rooms: being in the room, and being permitted by its access list.

Spec: https://spec.matrix.org/v1.19/server-server-api/#server-access-control-lists-acls
"""

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import Forbidden, NotFound, UnableDueToPartialState
from homeserver.protocol.event_types import SERVER_ACL_KEY
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.protocol.server_acl import ServerAcl
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room

MAX_TRUSTED_USERS = 1_000  # unknown users of a room with partial state
MAX_PARTIAL_ROOMS = 1_000  # with partial state, in which such users are cached

CACHED_LISTS = 50  # each takes at most 2 MiB, if an event is full of entries


class RoomAccess:
    """Checks which rooms a server may read and write."""

    def __init__(self, rooms: RoomRegistry) -> None:
        self._rooms = rooms
        # By event nid.
        self._lists: LruCache[int, ServerAcl] = LruCache("server_acls", CACHED_LISTS)
        # Users who are not known as members yet, by room.
        self._trusted: LruCache[int, set[str]] = LruCache("partial_room_users", MAX_PARTIAL_ROOMS)

    async def present(self, origin: str, room_id: str) -> Room:
        """The room, if this server is in it and its access list permits the other server.

        Raises `NotFound` and `Forbidden`.
        """
        room = await self._rooms.find(room_id)
        if room is None or self._rooms.local_server.server_name not in room.joined_servers:
            raise NotFound("This server is not in the room")
        if not await self.is_allowed(origin, room):
            raise Forbidden("The room's access list denies your server")
        return room

    async def shared_with_full_state(self, origin: str, room_id: str) -> Room:
        """The room, for requests that need the full state; else as `shared`.

        Raises `UnableDueToPartialState`.
        """
        room = await self.present(origin, room_id)
        if room.partial is not None:
            raise UnableDueToPartialState(
                "This server does not have the full state yet; ask another one"
            )
        return room

    async def shared(self, origin: str, room_id: str) -> Room:
        """The room, for requests that only servers in the room may send; else as `present`."""
        room = await self.present(origin, room_id)
        if origin not in room.servers:
            raise Forbidden("Your server is not in the room")
        return room

    def speaks_for(self, origin: str, user_id: str, room: Room) -> bool:
        """Whether a server may send EDUs of a user in a room: a local user of it who is joined.

        During partial state, unknown users of servers in the room are assumed to be members, up to
        `MAX_TRUSTED_USERS`.
        """
        if not is_valid_user_id(user_id) or user_id.partition(":")[2] != origin:
            return False
        membership = room.membership(user_id)
        if room.partial is None:
            self._trusted.pop(room.room_nid)
        elif membership is None and origin in room.servers:
            trusted = self._trusted.get(room.room_nid)
            if trusted is None:
                trusted = set()
                self._trusted.put(room.room_nid, trusted)
            if user_id in trusted or len(trusted) < MAX_TRUSTED_USERS:
                trusted.add(user_id)
                return True
        return membership == "join"

    async def is_allowed(self, origin: str, room: Room) -> bool:
        """Whether the room's access list permits a server."""
        if SERVER_ACL_KEY not in room.state:
            return True
        acl = (await self._rooms.current(room, [SERVER_ACL_KEY])).get(SERVER_ACL_KEY)
        if acl is None:
            return True
        # A redaction changes the content of the list; the nid of the event stays.
        key = acl.event_nid if acl.redaction is None else -acl.event_nid
        known = self._lists.get(key)
        if known is None:
            known = ServerAcl(acl.shown.content)
            self._lists.put(key, known)
        return known.is_allowed(origin)
