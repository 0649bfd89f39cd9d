"""Checks that many callers share: one at a time, bounded in time."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.concurrency.shared_check import SharedCheck


class Scene:
    """A check, whose results the test sets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.questions: list[Deferred[bool]] = []
        self.check = SharedCheck(self.clock, self.ask, name="a check", timeout=3.0)

    def ask(self) -> Deferred[bool]:
        self.questions.append(Deferred())
        return self.questions[-1]

    def want(self) -> Deferred[bool]:
        return Deferred.fromCoroutine(self.check.passes())


def test_one_check_serves_all_callers() -> None:
    """A thousand load balancers cost one query a second."""
    scene = Scene()
    wanted = [scene.want() for _ in range(5)]

    scene.questions[0].callback(True)

    assert [each.result for each in wanted] == [True] * 5
    assert scene.want().result is True
    assert len(scene.questions) == 1


def test_result_expires() -> None:
    """After a moment, the check runs again."""
    scene = Scene()
    scene.want()
    scene.questions[0].callback(True)

    scene.clock.advance(1.0)
    again = scene.want()
    scene.questions[1].callback(False)

    assert again.result is False


def test_timeout_means_failure() -> None:
    """A database that hangs is unhealthy, and gets no second query meanwhile."""
    scene = Scene()
    first = scene.want()
    scene.clock.advance(2.0)
    second = scene.want()
    assert not first.called

    scene.clock.advance(1.0)
    third = scene.want()

    assert [first.result, second.result, third.result] == [False] * 3
    assert len(scene.questions) == 1
    assert scene.clock.getDelayedCalls() == []


def test_late_result_counts_for_later_callers() -> None:
    """The database is healthy as soon as it responds again."""
    scene = Scene()
    scene.want()
    scene.clock.advance(60.0)

    scene.questions[0].callback(True)

    assert scene.want().result is True


def test_error_means_failure() -> None:
    """Any exception means failure."""
    scene = Scene()
    wanted = scene.want()

    scene.questions[0].errback(ValueError("read only"))

    assert wanted.result is False


def test_cancelled_caller_does_not_cancel_others() -> None:
    """A load balancer that disconnects ends only its own wait."""
    scene = Scene()
    gone, other = scene.want(), scene.want()
    gone.addErrback(lambda _: None)

    gone.cancel()
    scene.questions[0].callback(True)

    assert other.result is True
