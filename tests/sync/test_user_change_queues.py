"""User change queues: which changes wake which users, and when, on the test's clock."""

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.presence.presence_changed import PresenceChanged
from homeserver.presence.user_presence import ONLINE
from homeserver.rooms.ephemeral.typing import TypingChanged
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.sync.user_change_queues import (
    MAX_IMMEDIATE_AUDIENCE,
    PRESENCE_SECONDS,
    UserChangeQueues,
)

ROOM = 1


class OneRoom:
    """All users are in the same room."""

    async def joined(self, _: str) -> list[int]:
        return [ROOM]


class Position:
    """A log that has only a position."""

    position = 0


class SlowRooms:
    """A database that takes its time."""

    def __init__(self) -> None:
        self.answer: Deferred[list[int]] = Deferred()

    def joined(self, _: str) -> Deferred[list[int]]:
        return self.answer


class Audience:
    """Users with a waiting request. `woken` counts by user."""

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


def test_few_users_get_presence_at_once() -> None:
    """In small rooms a contact is shown as online immediately."""
    audience = Audience(MAX_IMMEDIATE_AUDIENCE)

    audience.queues.apply([changed(1, "@u0:test")])
    audience.clock.advance(0)

    assert set(audience.woken.values()) == {1}


def test_many_users_get_the_changes_of_a_second_together() -> None:
    """A room of thousands, where users come and go all the time, costs one update a second."""
    audience = Audience(MAX_IMMEDIATE_AUDIENCE + 1)

    for position in range(1, 6):
        audience.queues.apply([changed(position, f"@u{position}:test")])
        audience.clock.advance(PRESENCE_SECONDS / 10)

    assert audience.woken["@u0:test"] == 0
    assert audience.woken["@u1:test"] == 1, "users hear of themselves at once"
    audience.clock.pump([PRESENCE_SECONDS, 0])
    assert audience.woken["@u0:test"] == 1
    assert not audience.clock.getDelayedCalls()


def test_other_changes_do_not_wait_with_presence() -> None:
    """Messages and typing are as fast in a large room as in a small one."""
    audience = Audience(MAX_IMMEDIATE_AUDIENCE + 1)
    audience.queues.apply([changed(1, "@u1:test")])

    audience.queues.apply([TypingChanged(2, ROOM, "@u2:test", True)])
    audience.clock.advance(0)

    assert audience.woken["@u0:test"] == 1


def test_queue_knows_that_it_missed_changes_during_its_load() -> None:
    """Changes published between the load and the subscription were once in no queue."""
    rooms, log, clock = SlowRooms(), Position(), Clock()
    queues = UserChangeQueues(cast("UserRooms", rooms), log, clock, 10)
    made = Deferred.fromCoroutine(queues.queue_of("@alice:test"))

    log.position = 1
    queues.apply([TypingChanged(1, ROOM, "@bob:test", typing=True)])
    rooms.answer.callback([ROOM])

    assert cast("Any", made).result.changed_since(0) != set()
    assert cast("Any", made).result.changed_since(1) == set()


def test_one_failing_waiter_does_not_stop_the_others() -> None:
    """After one error all users once stayed asleep until the next restart."""
    audience = Audience(3)
    queue = audience.queues.loaded("@u0:test")
    assert queue is not None
    queue.waiters.add(lambda: 1 // 0)

    for position in (1, 2):
        audience.queues.apply([changed(position, "@u0:test")])
        audience.clock.advance(0)

    assert set(audience.woken.values()) == {2}
