"""Lists after an update are those that would be computed from the beginning."""

from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.sliding_sync.request import ListConfig, RequestBody, RoomListFilters
from homeserver.protocol.sliding_sync.room_config import RoomConfig
from homeserver.rooms.room.user_rooms import Membership
from homeserver.sync.sliding.connection import ListedScope
from homeserver.sync.sliding.listed_rooms import ListedRoom
from homeserver.sync.sliding.room_lists import MAX_MOVED, ListReader, RoomLists
from homeserver.sync.sync_request import SyncRequest

ROOMS = range(1, 13)
READER = SyncRequest(Requester("@alice:test", "PHONE"))
CONFIG = RoomConfig(1)
SPACES = RoomListFilters(room_types=frozenset({"m.space"}))
OTHERS = RoomListFilters(not_room_types=frozenset({"m.space"}))


class Listed:
    """Rooms as lists see them; every third one is a space."""

    def __init__(self) -> None:
        self.version = 0
        self.rooms = {
            nid: ListedRoom(nid, "m.space" if nid % 3 == 0 else None, False) for nid in ROOMS
        }

    def loaded(self, nid: int) -> ListedRoom | None:
        return self.rooms.get(nid)

    async def of(self, nids: Collection[int]) -> Mapping[int, ListedRoom]:
        return {nid: self.rooms[nid] for nid in nids}


class Filters:
    """Filters by the type of a room."""

    async def passing(
        self,
        user_id: str,
        filters: RoomListFilters,
        order: Sequence[int],
        rooms: Mapping[int, ListedRoom],
        places: Any,
    ) -> Sequence[int]:
        types = filters.room_types
        return [
            nid
            for nid in order
            if rooms[nid].room_type not in filters.not_room_types
            and (types is None or rooms[nid].room_type in types)
        ]


class Names:
    """Finds rooms by their ids."""

    async def find_room_nids(self, room_ids: Collection[str]) -> dict[str, int]:
        return {room_id: int(room_id[1:]) for room_id in room_ids}


class Scene:
    """A user in twelve rooms, two of which invite them."""

    def __init__(self) -> None:
        self.listed = Listed()
        anything = cast("Any", None)
        self.lists = RoomLists(
            cast("Any", Names()),
            cast("Any", self.listed),
            cast("Any", Filters()),
            anything,
            anything,
            Clock(),
        )
        self.places = {
            nid: Membership("knock" if nid > 10 else "join", nid, 5 * nid, "@alice:test")
            for nid in ROOMS
        }

    def scope(self, body: RequestBody) -> ListedScope:
        """The scope of a request, from the beginning."""
        return run(self.lists.scope(body, ListReader(READER, self.places, {})))


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that does not wait."""
    with pytest.raises(StopIteration) as done:
        work.send(None)
    return done.value.value


def same(one: ListedScope, other: ListedScope) -> bool:
    """Whether two scopes have the same rooms in the same lists."""
    return (one.rooms, one.counts, one.is_whole, one.orders) == (
        other.rooms,
        other.counts,
        other.is_whole,
        other.orders,
    )


joined = st.integers(1, 10)
ranges = st.lists(st.tuples(st.integers(0, 6), st.integers(6, 12)), min_size=1, max_size=2)
changes = st.lists(st.tuples(st.lists(joined, unique=True), st.booleans()), max_size=8)


@given(ranges, ranges, st.sets(joined, max_size=2), changes)
def test_order_follows_events(
    spaces: Sequence[tuple[int, int]],
    others: Sequence[tuple[int, int]],
    subscribed: Collection[int],
    plan: Sequence[tuple[Sequence[int], bool]],
) -> None:
    """A client sees the same whether its list was sorted again or not."""
    scene = Scene()
    lists = {
        "spaces": ListConfig(CONFIG, spaces, SPACES),
        "others": ListConfig(CONFIG, others, OTHERS),
    }
    rooms = {f"!{nid}": RoomConfig(5) for nid in subscribed}
    body = RequestBody(lists, rooms)
    scope, position = scene.scope(body), 100
    for changed, is_event in plan:
        for nid in changed:
            position += 1
            if is_event:
                scene.listed.rooms[nid].position = position
        after = scene.lists.scope_after(scope, changed)
        assert after is not None
        assert same(after, scene.scope(body))
        scope = after


def test_new_type_of_a_room_begins_again() -> None:
    """Where filters see a room in another way, it may belong to another list."""
    scene = Scene()
    body = RequestBody({"others": ListConfig(CONFIG, [(0, 2)], OTHERS)})
    scope = scene.scope(body)
    scene.listed.version = scene.listed.rooms[4].version = 1

    assert scene.lists.scope_after(scope, [4]) is None
    assert scene.lists.scope_after(scope, [5]) is not None
    assert scene.lists.scope_after(scene.scope(body), [4]) is not None


def test_room_that_is_not_in_memory_begins_again() -> None:
    """What lists know of rooms is a cache."""
    scene = Scene()
    body = RequestBody({"all": ListConfig(CONFIG, [(0, 2)])})
    scope = scene.scope(body)
    del scene.listed.rooms[7]

    assert scene.lists.scope_after(scope, [7]) is None
    assert scene.lists.scope_after(scope, list(range(100, 101 + MAX_MOVED))) is None


def test_subscriptions_alone_need_no_lists() -> None:
    """A connection for a room, or for keys, sorts nothing."""
    scene = Scene()
    scope = scene.scope(RequestBody(subscriptions={"!3": CONFIG}))

    assert scene.lists.scope_after(scope, [99]) is scope
    assert scope.rooms.keys() == {3}
