"""The lists of a request: which of the user's rooms are in their ranges, and with which config.

Rooms are sorted by their newest event, or, where the user is not in the room, by the event that
made it so. Invites from ignored users, and blocked ones, are in no list.

Spec: MSC4186
"""

from bisect import insort
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from homeserver.accounts.user_data.account_data import AccountData
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.proposals.invite_filter import InviteAction
from homeserver.protocol.sliding_sync.request import (
    ExtensionConfigs,
    ExtensionScope,
    ListConfig,
    RequestBody,
)
from homeserver.protocol.sliding_sync.room_config import RoomConfig
from homeserver.rooms.history.visibility import Visibility
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.user_rooms import MemberRooms, Membership
from homeserver.sync.sliding.connection import ListedScope, ScopedRoom, SentRoom
from homeserver.sync.sliding.listed_rooms import ListedRoom, ListedRooms
from homeserver.sync.sliding.room_filters import RoomFilters
from homeserver.sync.sync_request import SyncRequest

MAX_CACHED_MEMBERSHIPS = 20_000
MAX_MOVED = 100  # rooms that change their places in a list; with more it is sorted again


class ListReader(msgspec.Struct, frozen=True):
    """Whose lists these are: their memberships, and the rooms that the connection was sent."""

    request: SyncRequest
    places: MemberRooms
    sent: Mapping[int, SentRoom]


class RoomLists:
    """Computes lists."""

    def __init__(
        self,
        rooms: RoomRegistry,
        listed: ListedRooms,
        filters: RoomFilters,
        account_data: AccountData,
        visibility: Visibility,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._rooms = rooms
        self._listed = listed
        self._filters = filters
        self._account_data = account_data
        self._visibility = visibility
        self._memberships: LruCache[tuple[str, int, int], bool] = LruCache(
            "former_memberships", MAX_CACHED_MEMBERSHIPS
        )

    async def scope(self, body: RequestBody, reader: ListReader) -> ListedScope:
        """The rooms of a request."""
        version = self._listed.version
        orders: dict[str, Sequence[int]] = {}
        outside: dict[int, int] = {}
        time_slice = TimeSlice(self._clock)
        if body.lists:
            places = reader.places
            shown = await self._shown(reader)
            rooms = await self._listed.of(shown)
            outside = {n: places[n].position for n in shown if places[n].membership != "join"}
            activity = {nid: room.position for nid, room in rooms.items()} | outside
            order = sorted(shown, key=activity.__getitem__, reverse=True)
            for name, config in body.lists.items():
                if time_slice.is_over:
                    await time_slice.next()
                orders[name] = await self._filters.passing(
                    reader.request.user_id, config.filters, order, rooms, places
                )
        subscribed: dict[int, ScopedRoom] = {}
        for room_id, nid in (await self._rooms.find_room_nids(body.subscriptions)).items():
            if nid in reader.places and await self._may_subscribe(reader, nid):
                wanted = body.subscriptions[room_id]
                subscribed[nid] = _scoped_by_subscription(room_id, wanted, body.extensions)
        return _scope(body, version, orders, outside, subscribed)

    def scope_after(self, scope: ListedScope, changed: Collection[int]) -> ListedScope | None:
        """The scope after events in some rooms, in all of which the user is as before.

        `None` if it has to be computed from the beginning.
        """
        if not scope.body.lists:
            return scope
        if len(changed) > MAX_MOVED:
            return None
        for nid in changed:
            room = self._listed.loaded(nid)
            if room is None or room.version > scope.version:
                return None
        if scope.is_whole or _is_first(scope.orders, changed):
            return scope
        activity = _Activity(self._listed.loaded, scope.outside)
        try:
            orders = {
                name: _moved(order, changed, activity) for name, order in scope.orders.items()
            }
        except _NotLoaded:
            return None
        return _scope(scope.body, scope.version, orders, scope.outside, scope.subscribed)

    async def _shown(self, reader: ListReader) -> Sequence[int]:
        """The rooms of all lists before they are filtered."""
        places = reader.places
        found = [nid for nid, place in places.items() if place.membership == "join"]
        if len(found) < len(places):
            for nid, place in places.items():
                if place.membership != "join" and await self._is_shown(reader, nid, place):
                    found.append(nid)
        return found

    async def _is_shown(self, reader: ListReader, nid: int, place: Membership) -> bool:
        """Whether a room is listed that the user is not in."""
        user_id = reader.request.user_id
        if place.membership == "invite":
            return not await self._hides_invite(reader.request, place)
        if place.membership == "knock":
            return True
        if place.forgotten:
            return False
        if nid in reader.sent:
            return True
        is_leave = place.membership == "leave" and place.sender == user_id
        return not is_leave and await self._was_member(nid, place, user_id)

    async def _may_subscribe(self, reader: ListReader, nid: int) -> bool:
        """Whether the user may see anything of a room now."""
        place, user_id = reader.places[nid], reader.request.user_id
        if place.membership in ("join", "knock"):
            return True
        if place.membership == "invite":
            return not await self._hides_invite(reader.request, place)
        return not place.forgotten and (
            nid in reader.sent or await self._was_member(nid, place, user_id)
        )

    async def _hides_invite(self, request: SyncRequest, place: Membership) -> bool:
        action = await self._account_data.invite_action(request.user_id, place.sender)
        return action is not InviteAction.ALLOW

    async def _was_member(self, nid: int, place: Membership, user_id: str) -> bool:
        """Whether a user who is not in a room ever was."""
        key = user_id, nid, place.event
        known = self._memberships.get(key)
        if known is None:
            room = await self._rooms.by_number(nid)
            known = room is not None and await self._visibility.joined_until(room, user_id) > 0
            self._memberships.put(key, known)
        return known


class _NotLoaded(Exception):
    """What lists know of a room is not in memory."""


class _Activity:
    """Sorts rooms: by their newest event, or as `outside` says of those the user is not in."""

    def __init__(
        self, listed: Callable[[int], ListedRoom | None], outside: Mapping[int, int]
    ) -> None:
        self._listed = listed
        self._outside = outside

    def __call__(self, nid: int) -> int:
        position = self._outside.get(nid)
        if position is not None:
            return position
        room = self._listed(nid)
        if room is None:
            raise _NotLoaded
        return room.position


def _is_first(orders: Mapping[str, Sequence[int]], changed: Collection[int]) -> bool:
    """Whether one room has changed, and is already the first of each list."""
    if len(changed) != 1:
        return False
    (nid,) = changed
    return all(order and order[0] == nid for order in orders.values())


def _moved(order: Sequence[int], changed: Collection[int], activity: _Activity) -> Sequence[int]:
    """The order after something happened in some rooms, of which it need not have all."""
    moved = list(order)
    those = [nid for nid in changed if nid in moved]
    for nid in those:
        moved.remove(nid)
    for nid in those:
        insort(moved, nid, key=lambda each: -activity(each))
    return moved


def _scope(
    body: RequestBody,
    version: int,
    orders: Mapping[str, Sequence[int]],
    outside: Mapping[int, int],
    subscribed: Mapping[int, ScopedRoom],
) -> ListedScope:
    """The scope whose lists have these rooms in these orders."""
    scoped: dict[int, ScopedRoom] = {}
    is_whole = True
    for name, order in orders.items():
        config = body.lists[name]
        in_ranges = _in_ranges(order, config)
        is_whole = is_whole and len(in_ranges) == len(order)
        _add(scoped, in_ranges, _scoped_by_list(name, config, body.extensions))
    for nid, each in subscribed.items():
        _add(scoped, (nid,), each)
    counts = {name: len(order) for name, order in orders.items()}
    if is_whole:
        return ListedScope(body, version, counts, scoped, is_whole)
    return ListedScope(body, version, counts, scoped, is_whole, orders, outside, subscribed)


def _in_ranges(passing: Sequence[int], config: ListConfig) -> Sequence[int]:
    if config.ranges is None:
        return passing
    if len(config.ranges) == 1:
        ((start, end),) = config.ranges
        return passing[start : end + 1]
    found = [nid for start, end in config.ranges for nid in passing[start : end + 1]]
    return list(dict.fromkeys(found))


def _scoped_by_list(name: str, config: ListConfig, extensions: ExtensionConfigs) -> ScopedRoom:
    profiles = extensions.profiles

    def has(scope: ExtensionScope | None) -> bool:
        return scope is not None and scope.has_list(name)

    return ScopedRoom(
        config.room,
        (name,),
        has(extensions.receipts),
        has(extensions.typing),
        has(extensions.account_data),
        has(None if profiles is None else profiles.scope),
    )


def _scoped_by_subscription(
    room_id: str, config: RoomConfig, extensions: ExtensionConfigs
) -> ScopedRoom:
    profiles = extensions.profiles

    def has(scope: ExtensionScope | None) -> bool:
        return scope is not None and scope.has_subscription(room_id)

    return ScopedRoom(
        config,
        (),
        has(extensions.receipts),
        has(extensions.typing),
        has(extensions.account_data),
        has(None if profiles is None else profiles.scope),
    )


def _add(scoped: dict[int, ScopedRoom], nids: Sequence[int], each: ScopedRoom) -> None:
    """Add rooms; one that is there already gets the superset of both."""
    if scoped.keys().isdisjoint(nids):
        scoped.update(dict.fromkeys(nids, each))
        return
    combined: dict[ScopedRoom, ScopedRoom] = {}
    for nid in nids:
        other = scoped.get(nid)
        if other is None:
            scoped[nid] = each
            continue
        if other not in combined:
            combined[other] = ScopedRoom(
                RoomConfig.combined([other.config, each.config]),
                (*other.lists, *each.lists),
                other.receipts or each.receipts,
                other.typing or each.typing,
                other.account_data or each.account_data,
                other.profiles or each.profiles,
            )
        scoped[nid] = combined[other]
