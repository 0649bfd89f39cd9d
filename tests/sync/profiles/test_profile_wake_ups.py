"""Whom a change of a profile wakes: who has asked for profiles, and shares a room."""

from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from homeserver.accounts.user_data.profiles import ProfileChanged
from homeserver.rooms.room.user_rooms import MemberRooms, Membership, UserRooms
from homeserver.sync.user_change_queues import (
    BATCH_SECONDS,
    MAX_IMMEDIATE_AUDIENCE,
    UserChangeQueues,
)

ROOM, OTHER = 1, 2
ALICE, BOB, CAROL = "@alice:test", "@bob:test", "@carol:test"


class Rooms:
    """Memberships that are in memory for the users in `known`; `of` gives what a test wants."""

    def __init__(self, **rooms: int) -> None:
        self.rooms = {f"@{name}:test": room for name, room in rooms.items()}
        self.known = True
        self.reading: Deferred[MemberRooms] | None = None

    async def joined(self, user_id: str) -> list[int]:
        return [self.rooms.get(user_id, ROOM)]

    def loaded(self, user_id: str) -> MemberRooms | None:
        return self.places(user_id) if self.known else None

    def of(self, user_id: str) -> "Deferred[MemberRooms]":
        return self.reading or succeed(self.places(user_id))

    def places(self, user_id: str) -> MemberRooms:
        return {self.rooms.get(user_id, ROOM): Membership("join", 1, 1, user_id)}


class Position:
    """A log of which only the published position is used."""

    highest = 0


class Waiting:
    """Users with a waiting request each. `woken` are those who were woken, in order."""

    def __init__(self, users: list[str], rooms: Rooms) -> None:
        self.clock = Clock()
        self.queues = UserChangeQueues(cast("UserRooms", rooms), Position(), self.clock, 10_000)
        self.woken: list[str] = []
        for user_id in users:
            made = Deferred.fromCoroutine(self.queues.queue_of(user_id))
            made.addCallback(self._wait, user_id)

    def _wait(self, queue: Any, user_id: str) -> None:
        queue.waiters.add(lambda: self.woken.append(user_id))

    def ask(self, *users: str) -> None:
        for user_id in users:
            self.queues.follow_profiles(user_id)

    def change(self, user_id: str) -> None:
        self.queues.apply([ProfileChanged(1, user_id, "m.status", b"1")])
        self.clock.advance(0)


def test_who_has_asked_is_woken() -> None:
    """Others pay nothing for a status that they do not show."""
    waiting = Waiting([ALICE, BOB, CAROL], Rooms())
    waiting.change(ALICE)
    assert waiting.woken == []

    waiting.ask(BOB)
    waiting.change(ALICE)

    assert waiting.woken == [BOB]


def test_own_change_wakes_other_devices() -> None:
    """Also those of a user who shares no room with anybody."""
    waiting = Waiting([ALICE, BOB], Rooms(alice=OTHER))
    waiting.ask(ALICE, BOB)

    waiting.change(ALICE)

    assert waiting.woken == [ALICE]


def test_a_change_is_in_no_queue() -> None:
    """A busy status does not make queues shorter, and tokens of before stay what they were."""
    waiting = Waiting([ALICE, BOB], Rooms())
    waiting.ask(ALICE, BOB)

    waiting.change(ALICE)

    for user_id in (ALICE, BOB):
        queue = waiting.queues.loaded(user_id)
        assert queue is not None
        assert not queue.entries


def test_rooms_of_a_user_are_read_if_they_are_not_in_memory() -> None:
    """The process that wakes need not be the one that wrote."""
    rooms = Rooms()
    waiting = Waiting([BOB, CAROL], rooms)
    waiting.ask(BOB)
    rooms.known, rooms.reading = False, Deferred()
    waiting.change(ALICE)
    assert waiting.woken == []

    rooms.reading.callback(rooms.places(ALICE))
    waiting.clock.advance(0)

    assert waiting.woken == [BOB]


@pytest.mark.filterwarnings("ignore")
def test_all_who_asked_are_woken_if_the_database_is_away() -> None:
    """A change is late then, and never lost."""
    rooms = Rooms()
    waiting = Waiting([BOB, CAROL], rooms)
    waiting.ask(BOB)
    rooms.known, rooms.reading = False, fail(OSError("away"))

    waiting.change(ALICE)
    waiting.clock.advance(BATCH_SECONDS)
    waiting.clock.advance(0)

    assert waiting.woken == [BOB]


def test_a_large_audience_is_woken_together() -> None:
    """A room of thousands whose members change their status costs one update a second."""
    users = [f"@u{number}:test" for number in range(MAX_IMMEDIATE_AUDIENCE + 1)]
    waiting = Waiting(users, Rooms())
    waiting.ask(*users)

    waiting.change(users[1])
    waiting.change(users[1])
    at_once = list(waiting.woken)
    waiting.clock.pump([BATCH_SECONDS, 0])

    assert at_once == [users[1]] * 2, "users are woken at once by their own changes"
    assert sorted(waiting.woken) == sorted([*users, users[1], users[1]])
