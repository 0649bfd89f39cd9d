"""Whose devices a client has to look up again, and whose it need not follow any more.

A client follows the devices of everybody with whom its user shares a room. It receives the users
whose devices or keys changed, those with whom it shares a room that it did not share before, and
those with whom it shares none any more.

Spec: https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from homeserver.encryption.device_list_changes import DeviceListChanges
from homeserver.rooms.history.member_changes import (
    NO_MEMBER_CHANGES,
    MemberChanges,
    MembershipHistory,
)
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.user_rooms import MemberRooms, Membership, UserRooms
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.memberships import joined_members_among
from homeserver.storage.rooms.names import Names
from homeserver.streams.sync_tokens import SyncToken

FEW = 20  # users whose rooms are looked up one by one, and stay in memory


class DeviceListUpdate(NamedTuple):
    """User ids for `device_lists`, and the positions of changes of their devices."""

    changed: Collection[str]
    left: Collection[str]
    positions: Mapping[str, int]


NO_DEVICE_LIST_UPDATE = DeviceListUpdate((), (), {})


class DeviceListUpdates:
    """Finds the users for `device_lists`."""

    def __init__(
        self,
        db: Database,
        names: Names,
        rooms: RoomRegistry,
        user_rooms: UserRooms,
        changes: DeviceListChanges,
        history: MembershipHistory,
    ) -> None:
        self._db = db
        self._names = names
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._changes = changes
        self._history = history

    async def since(
        self,
        user_id: str,
        token: SyncToken,
        memberships: MemberRooms,
        candidates: Iterable[int],
        *,
        lists_changed: bool,
    ) -> DeviceListUpdate:
        """The update above a token; `NO_DEVICE_LIST_UPDATE` if there is nothing.

        `memberships` are the user's, and have at least the `candidates`: the rooms in which
        anything changed. `lists_changed` says whether any user's device list may have.
        """
        joined: set[str] = set()
        left: set[str] = set()
        renewed: set[str] = set()
        invited: set[str] = set()
        for room_nid in candidates:
            place = memberships.get(room_nid)
            if place is None or place.membership in ("invite", "knock"):
                continue
            since, room = token.of_room(room_nid), self._rooms.loaded(room_nid)
            if room is None or since < room.members_changed_at or since < place.position:
                # Who was away in between, the user or another, may have missed changes then.
                lists_changed = True
                changes = await self._compare(user_id, room_nid, place, since, joined, left)
                renewed |= changes.renewed
                invited |= changes.invited
        if not lists_changed:
            return NO_DEVICE_LIST_UPDATE
        own_rooms = {
            nid
            for nid, place in (await self._user_rooms.of(user_id)).items()
            if place.membership == "join"
        }
        positions = await self._changes.since(user_id, token, own_rooms, renewed)
        left.discard(user_id)
        # Users who shared a room at the change of their devices need not do so any more.
        unsure = (left | positions.keys()) - joined - {user_id}
        gone = unsure - await self._sharing(unsure, own_rooms)
        changed = (joined | positions.keys()) - gone
        changed.update(await self._changes.signed_since(user_id, token))
        left &= gone
        # Messages are encrypted for invited users, too; who has left before is not followed.
        changed |= invited - left
        if not (changed or left):
            return NO_DEVICE_LIST_UPDATE
        return DeviceListUpdate(changed, left, positions)

    async def _compare(
        self,
        user_id: str,
        room_nid: int,
        place: Membership,
        since: int,
        joined: set[str],
        left: set[str],
    ) -> MemberChanges:
        """Add the users who began and who ended to share one room with the user.

        Returns the other changes of a room that the user is in.
        """
        room = await self._rooms.by_number(room_nid)
        if room is None:
            return NO_MEMBER_CHANGES
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

    async def _sharing(self, user_ids: Collection[str], rooms: set[int]) -> set[str]:
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
