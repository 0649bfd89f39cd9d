"""The filters of lists, applied to all rooms of a user.

Spec: MSC4186
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from homeserver.accounts.user_data.account_data import INVITE_FILTERS, AccountData
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.event_types import (
    CREATE,
    DIRECT,
    ENCRYPTION,
    IGNORED_USER_LIST,
    SPACE_CHILD,
    TAG,
)
from homeserver.protocol.sliding_sync.request import RoomListFilters
from homeserver.protocol.spaces import parse_child
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.user_rooms import MemberRooms, Membership
from homeserver.sync.sections.invitations import Invitations
from homeserver.sync.sliding.listed_rooms import ListedRoom

FILTERED_BY_DATA = (DIRECT, TAG, IGNORED_USER_LIST, *INVITE_FILTERS)  # types of account data
MAX_CACHED_SPACES = 5_000
MAX_CACHED_INVITATIONS = 20_000
MAX_CACHED_USERS = 5_000

_Traits = tuple[str | None, bool]  # the type of a room, and whether it is encrypted


class RoomFilters:
    """Applies filters."""

    def __init__(
        self, account_data: AccountData, rooms: RoomRegistry, invitations: Invitations
    ) -> None:
        self._account_data = account_data
        self._rooms = rooms
        self._invitations = invitations
        self._direct: LruCache[str, tuple[bytes | None, frozenset[str]]] = LruCache(
            "direct_chats", MAX_CACHED_USERS
        )
        self._children: LruCache[int, tuple[bytes, frozenset[str]]] = LruCache(
            "space_children", MAX_CACHED_SPACES
        )
        self._invited: LruCache[tuple[int, int], _Traits] = LruCache(
            "invited_rooms", MAX_CACHED_INVITATIONS
        )

    async def depend_on_data_since(self, user_id: str, position: int) -> bool:
        """Whether a user's account data changed above a position by which rooms are filtered."""
        changes = await self._account_data.changed_since(user_id, position)
        return any(each in FILTERED_BY_DATA for _, each, _ in changes)

    async def direct_rooms(self, user_id: str) -> frozenset[str]:
        """The ids of the user's direct chats."""
        content = await self._account_data.content(user_id, DIRECT)
        cached = self._direct.get(user_id)
        if cached is not None and cached[0] is content:
            return cached[1]
        direct = _direct_rooms(content)
        self._direct.put(user_id, (content, direct))
        return direct

    async def direct_nids(self, user_id: str) -> frozenset[int]:
        """The nids of the user's direct chats, of those that this server knows."""
        room_ids = await self.direct_rooms(user_id)
        return frozenset((await self._rooms.find_room_nids(room_ids)).values())

    async def passing(
        self,
        user_id: str,
        filters: RoomListFilters,
        order: Sequence[int],
        rooms: Mapping[int, ListedRoom],
        places: MemberRooms,
    ) -> Sequence[int]:
        """Those of the rooms, in their order, that pass; `rooms` and `places` have all of them."""
        tests: list[Callable[[int], bool]] = []
        if filters.is_invited is not None:
            wanted = filters.is_invited
            tests.append(lambda nid: (places[nid].membership == "invite") is wanted)
        if filters.is_dm is not None:
            direct, is_wanted = await self.direct_nids(user_id), filters.is_dm
            tests.append(lambda nid: (nid in direct) is is_wanted)
        if filters.tags is not None or filters.not_tags:
            tests.append(_tag_test(filters, await self._tags(user_id)))
        if filters.spaces is not None:
            children = await self._children_of(filters.spaces, places)
            tests.append(children.__contains__)
        if (
            filters.is_encrypted is not None
            or filters.room_types is not None
            or filters.not_room_types
        ):
            invited = await self._invited_traits(order, places)
            tests.append(_trait_test(filters, rooms, invited))
        found = order
        for test in tests:
            found = [nid for nid in found if test(nid)]
        return found

    async def _children_of(self, spaces: Collection[str], places: MemberRooms) -> frozenset[int]:
        """The nids of rooms that are in one of these spaces, of those that the user is in."""
        found: set[str] = set()
        for nid in (await self._rooms.find_room_nids(spaces)).values():
            place = places.get(nid)
            if place is not None and place.membership == "join":
                found |= await self._children_in(nid)
        return frozenset((await self._rooms.find_room_nids(found)).values())

    async def _tags(self, user_id: str) -> Mapping[int, Collection[str]]:
        """The tags of the user's rooms that have any, by nid."""
        contents = await self._account_data.of_rooms(user_id, TAG)
        nids = await self._rooms.find_room_nids(contents)
        return {nid: _tags_in(contents[room_id]) for room_id, nid in nids.items()}

    async def _children_in(self, nid: int) -> frozenset[str]:
        room = await self._rooms.by_number(nid)
        if room is None:
            return frozenset()
        root = room.root
        cached = self._children.get(nid)
        if cached is not None and cached[0] == root:
            return cached[1]
        keys = [key for key in room.state if key[0] == SPACE_CHILD]
        state = await self._rooms.current(room, keys)
        children = frozenset(
            key[1]
            for key, stored in state.items()
            if parse_child(key[1], stored.shown.content, 0) is not None
        )
        self._children.put(nid, (root, children))
        return children

    async def _invited_traits(
        self, order: Sequence[int], places: MemberRooms
    ) -> Mapping[int, _Traits]:
        """What invites and knocks say of their rooms: the user may not know more."""
        invited = [nid for nid in order if places[nid].membership in ("invite", "knock")]
        return {nid: await self._traits_of(nid, places[nid]) for nid in invited}

    async def _traits_of(self, nid: int, place: Membership) -> _Traits:
        key = nid, place.event
        traits = self._invited.get(key)
        if traits is None:
            room = await self._rooms.by_number(nid)
            events = [] if room is None else await self._invitations.stripped_state(room, place)
            by_type = {event.get("type"): event.get("content") for event in events}
            create = by_type.get(CREATE)
            room_type = create.get("type") if isinstance(create, dict) else None
            traits = (room_type if isinstance(room_type, str) else None, ENCRYPTION in by_type)
            self._invited.put(key, traits)
        return traits


def _tag_test(
    filters: RoomListFilters, tags: Mapping[int, Collection[str]]
) -> Callable[[int], bool]:
    wanted, unwanted = filters.tags, filters.not_tags

    def test(nid: int) -> bool:
        own = tags.get(nid, ())
        return unwanted.isdisjoint(own) and (wanted is None or not wanted.isdisjoint(own))

    return test


def _trait_test(
    filters: RoomListFilters, rooms: Mapping[int, ListedRoom], invited: Mapping[int, _Traits]
) -> Callable[[int], bool]:
    is_encrypted, wanted, unwanted = (
        filters.is_encrypted,
        filters.room_types,
        filters.not_room_types,
    )

    def test(nid: int) -> bool:
        traits = invited.get(nid)
        if traits is None:
            room = rooms[nid]
            traits = room.room_type, room.is_encrypted
        return (
            (is_encrypted is None or traits[1] is is_encrypted)
            and traits[0] not in unwanted
            and (wanted is None or traits[0] in wanted)
        )

    return test


def _direct_rooms(content: bytes | None) -> frozenset[str]:
    """The rooms in `m.direct`, which clients wrote: it may have any content."""
    chats = msgspec.json.decode(content) if content else None
    if not isinstance(chats, dict):
        return frozenset()
    lists = [rooms for rooms in chats.values() if isinstance(rooms, list)]
    return frozenset(room for rooms in lists for room in rooms if isinstance(room, str))


def _tags_in(content: bytes) -> Collection[str]:
    value: Any = msgspec.json.decode(content)
    tags = value.get("tags") if isinstance(value, dict) else None
    return tags if isinstance(tags, dict) else ()
