"""Whose devices a client has to look up again, and whose it need not follow any more.

A client follows the devices of everybody with whom its user shares a room. It receives the users
whose devices or keys changed, those with whom it shares a room that it did not share before, and
those with whom it shares none any more.

Spec: https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from homeserver.encryption.device_list_changes import DeviceListChanges
from homeserver.rooms.room.user_rooms import MemberRooms
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sections.room_sharers import RoomSharers


class DeviceListUpdate(NamedTuple):
    """User ids for `device_lists`, and the positions of changes of their devices."""

    changed: Collection[str]
    left: Collection[str]
    positions: Mapping[str, int]


NO_DEVICE_LIST_UPDATE = DeviceListUpdate((), (), {})


class DeviceListUpdates:
    """Finds the users for `device_lists`."""

    def __init__(self, shared: RoomSharers, changes: DeviceListChanges) -> None:
        self._shared = shared
        self._changes = changes

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
        differing = self._shared.differing(token, memberships, candidates)
        async for room, place, since in differing:
            if place.membership in ("invite", "knock"):
                continue
            # Who was away in between, the user or another, may have missed changes then.
            lists_changed = True
            changes = await self._shared.compare(user_id, room, place, since, joined, left)
            renewed |= changes.renewed
            invited |= changes.invited
        if not lists_changed:
            return NO_DEVICE_LIST_UPDATE
        own_rooms = await self._shared.joined_rooms(user_id)
        positions = await self._changes.since(user_id, token, own_rooms, renewed)
        left.discard(user_id)
        # Users who shared a room at the change of their devices need not do so any more.
        unsure = (left | positions.keys()) - joined - {user_id}
        gone = unsure - await self._shared.sharing(unsure, own_rooms)
        changed = (joined | positions.keys()) - gone
        changed.update(await self._changes.signed_since(user_id, token))
        left &= gone
        # Messages are encrypted for invited users, too; who has left before is not followed.
        changed |= invited - left
        if not (changed or left):
            return NO_DEVICE_LIST_UPDATE
        return DeviceListUpdate(changed, left, positions)
