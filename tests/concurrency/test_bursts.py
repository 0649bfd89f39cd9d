"""Actions that come in bursts."""

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.concurrency import bursts as bursts_module
from homeserver.concurrency.bursts import Bursts, fire_all


class Actions:
    """Actions by key; `done` are those that were done, in their order."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.done: list[str] = []
        self.bursts = Bursts(self.clock, self.do_all, immediate=2, seconds=1.0)
        self.together: list[Sequence[str]] = []
        self.blocked: Deferred[None] | None = None

    async def do_all(self, names: Sequence[str]) -> None:
        self.together.append(names)
        if self.blocked is not None:
            await self.blocked
        self.done += names

    def act(self, *names: str) -> None:
        for name in names:
            if self.bursts.wait(name[0]):
                self.bursts.add(name)
            else:
                self.done.append(name)


def test_first_actions_of_each_key_do_not_wait() -> None:
    """Where little happens, nothing is slower."""
    actions = Actions()

    actions.act("a1", "a2", "a3", "b1", "b2", "b3")

    assert actions.done == ["a1", "a2", "b1", "b2"]


def test_others_are_done_together_in_their_order() -> None:
    """They cost one commit."""
    actions = Actions()
    actions.act("a1", "a2", "a3")
    actions.clock.advance(0.9)
    actions.act("b1", "a4", "b2", "b3")
    assert actions.done == ["a1", "a2", "b1", "b2"]

    actions.clock.advance(0.1)

    assert actions.together == [["a3", "a4", "b3"]]
    assert actions.done[4:] == ["a3", "a4", "b3"]
    assert actions.clock.getDelayedCalls() == []


def test_next_burst_begins_from_the_start() -> None:
    """A room that is quiet again is as quick as before."""
    actions = Actions()
    actions.act("a1", "a2", "a3")
    actions.clock.advance(2)

    actions.act("a4", "a5", "a6")

    assert actions.done == ["a1", "a2", "a3", "a4", "a5"]
    actions.clock.advance(1)
    assert actions.done[-1] == "a6"


def test_all_wait_while_too_many_come() -> None:
    """A room that stays busy costs no commits of its own; a quiet one beside it does not wait."""
    actions = Actions()
    actions.act("a1", "a2", "a3")
    actions.clock.advance(1)
    actions.done.clear()

    actions.act("a4", "b1", "a5", "a6")
    assert actions.done == ["b1"]
    actions.clock.advance(1)
    assert actions.done == ["b1", "a4", "a5", "a6"]

    actions.act("a7")
    actions.clock.advance(1)
    actions.act("a8")
    assert actions.done[4:] == ["a7", "a8"], "it is quiet again"


def test_no_more_wait_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Actions that wait must not fill the memory."""
    monkeypatch.setattr(bursts_module, "MAX_WAITING", 2)
    actions = Actions()

    actions.act(*(f"a{number}" for number in range(1, 8)))

    assert actions.done == ["a1", "a2", "a5", "a6", "a7"]


def test_what_is_not_done_yet_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the database is slow, no more wait than where it is not."""
    monkeypatch.setattr(bursts_module, "MAX_WAITING", 2)
    actions = Actions()
    actions.blocked = Deferred()
    actions.act("a1", "a2", "a3", "a4")
    actions.clock.advance(1)
    actions.done.clear()

    actions.act("a5")
    assert actions.done == ["a5"]
    actions.blocked.callback(None)
    assert actions.done == ["a5", "a3", "a4"]

    actions.act("a6")
    assert actions.done == ["a5", "a3", "a4"]


class SlowClock(Clock):
    """A clock on which each look takes two milliseconds. `iterations` are those of the reactor."""

    iterations = 0

    def seconds(self) -> float:
        self.rightNow += 0.002
        return float(super().seconds())

    def callLater(self, when: float, what: Any, *args: Any, **kw: Any) -> Any:
        self.iterations += when == 0
        return super().callLater(when, what, *args, **kw)


def test_many_actions_do_not_hold_up_the_reactor() -> None:
    """Other requests are served between them; who does not wait any more is left out."""
    clock = SlowClock()
    done: list[int] = []
    waiting: list[Deferred[int]] = [Deferred() for _ in range(10)]
    for each in waiting:
        each.addCallbacks(done.append, lambda _: None)
    waiting[3].cancel()

    Deferred.fromCoroutine(fire_all(clock, ((each, n) for n, each in enumerate(waiting))))
    clock.pump([0] * 20)

    assert done == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert clock.iterations >= 3
