"""Slots that are shared fairly."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from homeserver.concurrency.fair_slots import FairSlots, QueueFull

KEYS = ("crowd", "alone", "third")


class Users:
    """Users that take slots, and hold them until the test releases them."""

    def __init__(self, slots: FairSlots) -> None:
        self.slots = slots
        self.holding: list[str] = []
        self.ends: list[Deferred[None]] = []

    def begin(self, key: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self._hold(key))

    async def _hold(self, key: str) -> None:
        async with self.slots.slot(key):
            end: Deferred[None] = Deferred()
            self.holding.append(key)
            self.ends.append(end)
            try:
                await end
            finally:
                place = self.ends.index(end)
                del self.ends[place], self.holding[place]


MADE: list[Users] = []  # by the test that runs


def users(size: int = 2, share: int = 2, waiting: int = 3, in_all: int = 5) -> Users:
    MADE.append(Users(FairSlots(size, share=share, max_waiting=waiting, max_waiting_in_all=in_all)))
    return MADE[-1]


@pytest.fixture(autouse=True)
def _all_slots_are_released() -> Iterator[None]:
    """Coroutines that still wait would be closed by the garbage collector, in some other test."""
    yield
    for some in MADE:
        while some.ends:
            some.ends[0].callback(None)
    MADE.clear()


def refusal_of(request: Deferred[None]) -> type[BaseException] | None:
    """The class of the error that a request has ended with."""
    errors: list[type[BaseException] | None] = []
    request.addErrback(lambda failure: errors.append(failure.type))
    return errors[0]


def test_single_request_does_not_wait_for_a_crowd() -> None:
    """A server with one request waits for one slot, not for all earlier requests."""
    some = users()
    for _ in range(5):
        some.begin("crowd")
    some.begin("alone")

    some.ends[0].callback(None)
    some.ends[0].callback(None)

    assert sorted(some.holding) == ["alone", "crowd"]


def test_no_key_takes_more_than_a_share() -> None:
    """A crowd leaves room for later users."""
    some = users(size=3, share=2)
    for _ in range(4):
        some.begin("crowd")
    assert some.holding == ["crowd", "crowd"]

    some.begin("alone")

    assert some.holding == ["crowd", "crowd", "alone"]


def test_queues_have_their_bounds() -> None:
    """A flood does not fill the memory."""
    some = users()
    for _ in range(5):
        some.begin("crowd")
    refused = some.begin("crowd")
    assert refusal_of(refused) is QueueFull
    some.begin("alone")
    some.begin("alone")
    last = some.begin("third")

    failures: list[type[BaseException]] = []
    last.addErrback(lambda failure: failures.append(failure.type))
    assert failures == [QueueFull]


def test_cancelled_wait_is_removed() -> None:
    """A cancelled request takes no slot."""
    some = users(size=1)
    some.begin("crowd")
    given_up = some.begin("alone")
    given_up.addErrback(lambda failure: failure.trap(CancelledError))
    given_up.cancel()

    some.ends[0].callback(None)

    assert some.slots.waiting == 0
    some.begin("third")
    assert some.holding == ["third"]


@given(st.lists(st.sampled_from([*KEYS, "end", "give up"]), max_size=60))
def test_slots_are_never_lost(steps: list[str]) -> None:
    """Whatever the order of events, no slot is idle while a request may have it."""
    some = users(size=3, share=2, waiting=4, in_all=6)
    waiting: list[Deferred[None]] = []
    for step in steps:
        if step == "end":
            if some.ends:
                some.ends[0].callback(None)
        elif step == "give up":
            if waiting:
                waiting.pop(0).cancel()
        else:
            wanted = some.begin(step)
            wanted.addErrback(lambda failure: failure.trap(QueueFull, CancelledError))
            waiting.append(wanted)
        assert len(some.holding) <= 3
        assert all(some.holding.count(key) <= 2 for key in KEYS)
    while some.ends:
        some.ends[0].callback(None)
    assert some.slots.waiting == 0
    assert not some.holding
