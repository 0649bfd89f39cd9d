"""The memberships of a room that differ between a position of the log and now.

Spec: https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync
"""

from collections.abc import Mapping

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.event_types import MEMBER
from homeserver.rooms.room.changes import membership_of
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.events import state_root_at

MAX_CACHED = 1_000  # ranges


class MemberChanges(msgspec.Struct, frozen=True):
    """Users who joined a room since a position, and users who were joined then and are not now.

    `renewed` are joined now as then, by another event: they may have been away in between.
    `invited` are invited now, and were not joined then.
    """

    joined: frozenset[str]
    left: frozenset[str]
    renewed: frozenset[str]
    invited: frozenset[str]


NO_MEMBER_CHANGES = MemberChanges(frozenset(), frozenset(), frozenset(), frozenset())


class MembershipHistory:
    """Compares the members of rooms; those who ask for the same range share the result."""

    def __init__(self, db: Database, rooms: RoomRegistry) -> None:
        self._db = db
        self._rooms = rooms
        self._cache: LruCache[tuple[int, int, int], MemberChanges] = LruCache(
            "member_changes", MAX_CACHED
        )

    async def since(self, room: Room, position: int) -> MemberChanges:
        """The members that differ now from those at a position."""
        before = room.undone(position)
        if before is not None and not any(event_type == MEMBER for event_type, _ in before):
            return NO_MEMBER_CHANGES
        key = room.room_nid, position, room.last_position
        found = self._cache.get(key)
        if found is None:
            found = self._cache.put(key, await self._compare(room, position, before))
        return found

    async def _compare(
        self, room: Room, position: int, before: Mapping[tuple[str, str], int | None] | None
    ) -> MemberChanges:
        if before is None:
            before = await self._before(room, position)
        members = {
            user_id: nid for (event_type, user_id), nid in before.items() if event_type == MEMBER
        }
        numbers = [nid for nid in members.values() if nid is not None]
        events = {
            stored.event_nid: stored for stored in await self._rooms.load_many_events(room, numbers)
        }
        was_joined = {
            user_id: nid is not None and membership_of(events.get(nid)) == "join"
            for user_id, nid in members.items()
        }
        is_joined = {user_id: room.membership(user_id) == "join" for user_id in members}
        return MemberChanges(
            frozenset(each for each in members if is_joined[each] and not was_joined[each]),
            frozenset(each for each in members if was_joined[each] and not is_joined[each]),
            frozenset(each for each in members if was_joined[each] and is_joined[each]),
            frozenset(
                each
                for each in members
                if not was_joined[each] and room.membership(each) == "invite"
            ),
        )

    async def _before(self, room: Room, position: int) -> dict[tuple[str, str], int | None]:
        """The entries of the state that were different at a position, from the state trees."""
        root = await self._db.run(state_root_at, room.room_nid, position) or EMPTY
        return await self._rooms.entries_before(root, room.root)
