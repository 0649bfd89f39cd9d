"""Rooms as lists see them follow the log, also while they are being read."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred

from homeserver.rooms.room.changes import EventAppended
from homeserver.sync.sliding.listed_rooms import ListedRooms


class SlowDatabase:
    """Reads of positions wait until the test ends them."""

    def __init__(self) -> None:
        self.reads: list[Deferred[dict[int, int]]] = []

    async def run(self, function: Callable[..., Any], room_nids: Sequence[int]) -> Any:
        read: Deferred[dict[int, int]] = Deferred()
        self.reads.append(read)
        return [(nid, position, "", False) for nid, position in (await read).items()]


def event(room_nid: int, position: int) -> EventAppended:
    return EventAppended(position, room_nid, b"root", stored=cast("Any", None))


def test_concurrent_reads_each_follow_the_log() -> None:
    """A read that ends takes nothing from the others, though they missed the same so far."""
    db = SlowDatabase()
    rooms = ListedRooms(cast("Any", db), cast("Any", None))
    first = Deferred.fromCoroutine(rooms.of([1]))
    second = Deferred.fromCoroutine(rooms.of([2]))
    found: dict[int, int] = {}
    for each in (first, second):
        each.addCallback(lambda by_nid: found.update({n: by_nid[n].position for n in by_nid}))

    db.reads[1].callback({2: 20})
    rooms.apply([event(1, 31), event(2, 32)])
    db.reads[0].callback({1: 10})

    assert found == {2: 20, 1: 31}
    later = [room.position for nid in (1, 2) if (room := rooms.loaded(nid)) is not None]
    assert later == [31, 32]


def test_room_that_is_read_again_may_have_changed() -> None:
    """What filters saw of a room before it was evicted is not known."""
    db = SlowDatabase()
    rooms = ListedRooms(cast("Any", db), cast("Any", None))
    rooms.version = 7
    Deferred.fromCoroutine(rooms.of([1]))
    db.reads[0].callback({1: 10})

    room = rooms.loaded(1)
    assert room is not None
    assert room.version == 7
