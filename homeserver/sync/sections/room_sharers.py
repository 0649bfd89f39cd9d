"""Room sharers: those with whom a user shares a room, and who has begun or ended to do so."""

from collections.abc import AsyncIterator, Collection, Iterable
from typing import NamedTuple

from homeserver.rooms.history.member_changes import (
    NO_MEMBER_CHANGES,
    MemberChanges,
    MembershipHistory,
)
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import MemberRooms, Membership, UserRooms
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.memberships import joined_members_among
from homeserver.storage.rooms.names import Names
from homeserver.streams.sync_tokens import SyncToken

FEW = 20  # users whose rooms are looked up one by one, and stay in memory


class SharerChanges(NamedTuple):
    """Users who share a room with a user, and did not before, and users who do not any more.

    Among those who `joined` may be users who shared another room already.
    """

    joined: set[str]
    left: set[str]


class RoomSharers:
    """Finds the users with whom a user shares a room."""

    def __init__(
        self,
        db: Database,
        names: Names,
        rooms: RoomRegistry,
        user_rooms: UserRooms,
        history: MembershipHistory,
    ) -> None:
        self._db = db
        self._names = names
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._history = history

    async def joined_rooms(self, user_id: str) -> set[int]:
        """The nids of the rooms that a user is joined to."""
        return set(await self._user_rooms.joined(user_id))

    async def changes(
        self,
        user_id: str,
        token: SyncToken,
        memberships: MemberRooms,
        candidates: Iterable[int],
    ) -> SharerChanges:
        """Who began and who ended to share a room with a user since a token.

        `memberships` are the user's, and have at least the `candidates`: the rooms in which
        anything changed.
        """
        joined: set[str] = set()
        left: set[str] = set()
        async for room, place, since in self.differing(token, memberships, candidates):
            await self.compare(user_id, room, place, since, joined, left)
        left.discard(user_id)
        if left:
            left -= await self.sharing(left, await self.joined_rooms(user_id))
        return SharerChanges(joined - left, left)

    async def differing(
        self, token: SyncToken, memberships: MemberRooms, candidates: Iterable[int]
    ) -> AsyncIterator[tuple[Room, Membership, int]]:
        """Those of the candidates whose members may have changed since a token.

        They come with the user's place and the token's position for the room.
        """
        known = [room_nid for room_nid in candidates if room_nid in memberships]
        async for rooms in self._rooms.in_batches(known):
            for room in rooms:
                place, since = memberships.get(room.room_nid), token.of_room(room.room_nid)
                if place is not None and since < max(room.members_changed_at, place.position):
                    yield room, place, since

    async def compare(
        self,
        user_id: str,
        room: Room,
        place: Membership,
        since: int,
        joined: set[str],
        left: set[str],
    ) -> MemberChanges:
        """Add the users who began and who ended to share one room with the user.

        Returns the other changes of a room that the user is in.
        """
        is_joined = place.membership == "join"
        changes = await self._history.since(room, since)
        was_joined = user_id in changes.left or (is_joined and user_id not in changes.joined)
        if is_joined and (not was_joined or since < room.full_state_at):
            joined.update(each for each in room.joined_members() if each != user_id)
        if is_joined and was_joined:
            joined |= changes.joined
            left |= changes.left
        elif was_joined:
            left |= changes.left
            left.update(each for each in room.joined_members() if each not in changes.joined)
        return changes if is_joined else NO_MEMBER_CHANGES

    async def sharing(self, user_ids: Collection[str], rooms: Collection[int]) -> set[str]:
        """Those of some users who are joined to one of the rooms."""
        if len(user_ids) > FEW:
            nids = await self._names.find_nids(user_ids)
            found = await self._db.run(joined_members_among, list(rooms), list(nids.values()))
            return {user_id for user_id, nid in nids.items() if nid in found}
        return {
            each
            for each in user_ids
            if any(
                place.membership == "join" and nid in rooms
                for nid, place in (await self._user_rooms.of(each)).items()
            )
        }
