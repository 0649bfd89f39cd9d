"""Change queues: the changes that wake each user, and when, on a clock that the test moves."""

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.presence.presence_changed import PresenceChanged
from homeserver.presence.user_presence import ONLINE
from homeserver.rooms.ephemeral.typing import TypingChanged
from homeserver.rooms.room.room_receipts import PRIVATE, Receipt, ReceiptsChanged
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.streams.shards import SHARDS, shard_of_user
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.user_change_queues import (
    BATCH_SECONDS,
    MAX_IMMEDIATE_AUDIENCE,
    MAX_IMMEDIATE_READERS,
    MAX_QUEUED_CHANGES,
    PRESENCE,
    USER_DATA,
    UserChangeQueue,
    UserChangeQueues,
)

ROOM = 1


class OneRoom:
    """Memberships in which every user is in the same room."""

    async def joined(self, _: str) -> list[int]:
        return [ROOM]


class Position:
    """A log of which only the published position is used."""

    highest = 0


class SlowRooms:
    """A database that responds when the test wants."""

    def __init__(self) -> None:
        self.response: Deferred[list[int]] = Deferred()

    def joined(self, _: str) -> Deferred[list[int]]:
        return self.response


class Audience:
    """Users with waiting requests. `woken` counts wake-ups by user."""

    def __init__(self, size: int) -> None:
        self.clock = Clock()
        self.queues = UserChangeQueues(cast("UserRooms", OneRoom()), Position(), self.clock, 10_000)
        self.woken = dict.fromkeys((f"@u{number}:test" for number in range(size)), 0)
        for user_id in self.woken:
            Deferred.fromCoroutine(self.queues.queue_of(user_id)).addCallback(self._wait, user_id)

    def _wait(self, queue: Any, user_id: str) -> None:
        queue.waiters.add(lambda: self._count(user_id))

    def _count(self, user_id: str) -> None:
        self.woken[user_id] += 1


def changed(position: int, user_id: str) -> PresenceChanged:
    return PresenceChanged(position, user_id, (ROOM,), ONLINE, None, 0)


def test_small_audience_is_woken_by_presence_at_once() -> None:
    """Users in small rooms see at once that a friend is online."""
    audience = Audience(MAX_IMMEDIATE_AUDIENCE)

    audience.queues.apply([changed(1, "@u0:test")])
    audience.clock.advance(0)

    assert set(audience.woken.values()) == {1}


def test_large_audience_is_woken_once_for_several_presence_changes() -> None:
    """A room of thousands, where presence changes all the time, costs one update a second."""
    audience = Audience(MAX_IMMEDIATE_AUDIENCE + 1)

    for position in range(1, 6):
        audience.queues.apply([changed(position, f"@u{position}:test")])
        audience.clock.advance(BATCH_SECONDS / 10)

    assert audience.woken["@u0:test"] == 0
    assert audience.woken["@u1:test"] == 1, "users are woken at once by their own presence"
    audience.clock.pump([BATCH_SECONDS, 0])
    assert audience.woken["@u0:test"] == 1
    assert not audience.clock.getDelayedCalls()


def receipt(position: int, *user_ids: str, kind: str = "m.read") -> ReceiptsChanged:
    receipts = [Receipt(user_id, kind, None, "$event", 1, 0) for user_id in user_ids]
    return ReceiptsChanged(position, ROOM, tuple(receipts))


def test_few_readers_are_woken_by_a_receipt_at_once() -> None:
    """Friends see at once that a message was read."""
    audience = Audience(MAX_IMMEDIATE_READERS)

    audience.queues.apply([receipt(1, "@u0:test")])
    audience.clock.advance(0)

    assert set(audience.woken.values()) == {1}


def test_many_readers_are_woken_once_for_all_receipts_of_a_second() -> None:
    """A message in a large room is followed by a receipt of each reader."""
    audience = Audience(MAX_IMMEDIATE_READERS + 1)

    for number in range(10):
        audience.queues.apply([receipt(number + 1, f"@u{number}:test")])
        audience.clock.advance(BATCH_SECONDS / 20)

    assert audience.woken["@u0:test"] == 1, "another device of the reader is woken at once"
    assert audience.woken["@u20:test"] == 0
    audience.clock.pump([BATCH_SECONDS, 0])
    assert set(audience.woken.values()) == {1, 2}
    assert audience.woken["@u20:test"] == 1
    assert not audience.clock.getDelayedCalls()


def test_receipts_of_one_batch_are_one_change() -> None:
    """What is stored together wakes the other devices of all its readers, and nobody else yet."""
    audience = Audience(MAX_IMMEDIATE_READERS + 1)
    queue = audience.queues.loaded("@u20:test")
    assert queue is not None

    typing = TypingChanged(2, ROOM, "@u9:test", True)
    private = receipt(4, "@u8:test", kind=PRIVATE)
    audience.queues.apply([receipt(1, "@u0:test"), typing, receipt(3, "@u1:test"), private])
    audience.queues.apply([receipt(5, "@u0:test"), receipt(6, "@u1:test")])

    assert [queue.changed_since(SyncToken(base)) for base in range(7)] == [{ROOM}] * 6 + [set()]
    assert queue.only_change_since(0) == queue.only_change_since(5) == ROOM
    assert queue.only_change_since(6) is None


def test_receipts_of_one_batch_wake_the_devices_of_their_readers() -> None:
    """Each user's own devices hide their notifications, whatever else is in the batch."""
    audience = Audience(MAX_IMMEDIATE_READERS + 1)

    audience.queues.apply([receipt(number + 1, f"@u{number}:test") for number in range(5)])
    audience.clock.advance(0)

    assert [audience.woken[f"@u{number}:test"] for number in range(6)] == [1, 1, 1, 1, 1, 0]


def test_receipts_of_one_entry_reach_whom_each_concerns() -> None:
    """What is private in it concerns its user alone, at the position that all of it has."""
    audience = Audience(MAX_IMMEDIATE_READERS + 1)
    private = Receipt("@u8:test", PRIVATE, None, "$event", 1, 0)
    public = receipt(3, "@u0:test", "@u1:test").receipts
    queues = [audience.queues.loaded(f"@u{number}:test") for number in (8, 20)]

    audience.queues.apply([ReceiptsChanged(3, ROOM, (private,))])
    audience.clock.advance(0)
    assert [queue and queue.only_change_since(2) for queue in queues] == [ROOM, None]

    audience.queues.apply([ReceiptsChanged(5, ROOM, (public[0], private, public[1]))])
    audience.clock.advance(0)

    assert [queue and queue.only_change_since(4) for queue in queues] == [ROOM, ROOM]
    assert [queue and queue.only_change_since(5) for queue in queues] == [None, None]
    woken = [audience.woken[f"@u{number}:test"] for number in (0, 1, 8, 20)]
    assert woken == [1, 1, 2, 0]


def test_two_changes_are_not_one() -> None:
    """Only what is known to be the one change is found as such."""
    queue = UserChangeQueue("@a:test", 10)
    assert queue.only_change_since(10) is None
    queue.add(11, 7)
    queue.add(12, 7)
    assert queue.only_change_since(10) == 7
    assert queue.only_change_since(9) is None, "there may be others below"

    queue.add(13, 8)

    assert queue.only_change_since(11) is None
    assert queue.only_change_since(12) == 8
    assert queue.only_change_since(13) is None


def test_receipts_that_wait_are_in_an_update_that_is_made_before() -> None:
    """A message does not wait for them, and brings them along."""
    audience = Audience(MAX_IMMEDIATE_READERS + 1)
    audience.queues.apply([receipt(5, "@u1:test")])

    queue = audience.queues.loaded("@u2:test")

    assert queue is not None
    assert queue.changed_since(SyncToken(4)) == {ROOM}


def test_private_receipts_concern_only_their_user() -> None:
    """Nobody else may notice."""
    audience = Audience(MAX_IMMEDIATE_READERS + 1)

    audience.queues.apply([receipt(1, "@u1:test", kind=PRIVATE)])
    audience.clock.pump([0, BATCH_SECONDS, 0])

    assert {user_id for user_id, count in audience.woken.items() if count} == {"@u1:test"}


def test_other_changes_do_not_wait_with_presence() -> None:
    """Messages and typing are as quick in a large room as in a small one."""
    audience = Audience(MAX_IMMEDIATE_AUDIENCE + 1)
    audience.queues.apply([changed(1, "@u1:test")])

    audience.queues.apply([TypingChanged(2, ROOM, "@u2:test", True)])
    audience.clock.advance(0)

    assert audience.woken["@u0:test"] == 1


def test_new_queue_is_incomplete_below_its_creation() -> None:
    """Entries published while a queue is created are not in it, and it must say so."""
    rooms, log, clock = SlowRooms(), Position(), Clock()
    queues = UserChangeQueues(cast("UserRooms", rooms), log, clock, 10)
    made = Deferred.fromCoroutine(queues.queue_of("@alice:test"))

    log.highest = 1
    queues.apply([TypingChanged(1, ROOM, "@bob:test", typing=True)])
    rooms.response.callback([ROOM])

    assert cast("Any", made).result.changed_since(SyncToken(0)) != set()
    assert cast("Any", made).result.changed_since(SyncToken(1)) == set()


def test_failing_waiter_does_not_stop_the_others() -> None:
    """One error must not keep all users asleep until the server is restarted."""
    audience = Audience(3)
    queue = audience.queues.loaded("@u0:test")
    assert queue is not None
    queue.waiters.add(lambda: 1 // 0)

    for position in (1, 2):
        audience.queues.apply([changed(position, "@u0:test")])
        audience.clock.advance(0)

    assert set(audience.woken.values()) == {2}


def test_changes_of_several_owners_are_found_in_any_order() -> None:
    """What one owner has written earlier may be heard of later."""
    late, early = 2 * SHARDS + 1, 2 * SHARDS + 2
    queue = UserChangeQueue("@alice:test", 10)
    for position, what in ((20, 3), (100, early), (50, late), (60, USER_DATA), (70, PRESENCE - 5)):
        queue.add(position, what)

    def found(base: int, **ahead: int) -> set[int] | None:
        named = {int(shard[1:]): position for shard, position in ahead.items()}
        return queue.changed_since(SyncToken(base, tuple(sorted(named.items()))))

    user_data = shard_of_user("@alice:test")
    assert found(50) == {early, USER_DATA, PRESENCE - 5}
    assert found(49) == {early, late, USER_DATA, PRESENCE - 5}
    assert found(49, s2=100) == {late, USER_DATA, PRESENCE - 5}
    assert found(49, s1=50, s2=100) == {USER_DATA, PRESENCE - 5}
    assert found(49, s1=50, s2=100, s5=70) == {USER_DATA}
    assert found(49, s1=50, s2=100, s5=70, **{f"s{user_data}": 60}) == set()
    assert found(10) == {3, early, late, USER_DATA, PRESENCE - 5}
    assert found(9, s1=50, s2=100) is None


def test_queue_that_forgets_knows_how_far_it_reaches_back() -> None:
    """A forgotten change may have a higher position than those that are kept."""
    queue = UserChangeQueue("@alice:test", 0)
    queue.add(500, 1)
    queue.add(100, 2)
    for position in range(101, 101 + MAX_QUEUED_CHANGES):
        queue.add(position, 3 + position % 2)

    assert queue.changed_since(SyncToken(499)) is None
    assert queue.changed_since(SyncToken(500)) == set()


def test_a_busy_room_does_not_shorten_a_queue() -> None:
    """A client that was away for a thousand messages of one room need not compare all rooms."""
    queue = UserChangeQueue("@alice:test", 0)
    queue.add(1, 2)
    for position in range(2, 2 + 3 * MAX_QUEUED_CHANGES):
        queue.add(position, 3)

    assert queue.changed_since(SyncToken(0)) == {2, 3}
    assert queue.changed_since(SyncToken(1)) == {3}
    assert queue.changed_since(SyncToken(1 + 3 * MAX_QUEUED_CHANGES)) == set()


def test_new_queue_is_incomplete_below_the_highest_position() -> None:
    """Of an owner that is ahead, changes above the token may have come before the queue."""
    rooms, seen = SlowRooms(), Position()
    seen.highest = 7
    queues = UserChangeQueues(cast("UserRooms", rooms), seen, Clock(), 10)
    made = Deferred.fromCoroutine(queues.queue_of("@alice:test"))
    rooms.response.callback([ROOM])

    assert cast("Any", made).result.changed_since(SyncToken(6, ((1, 7),))) is None
