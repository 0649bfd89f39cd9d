"""Periodic tasks: they continue after errors, and never overlap themselves."""

from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from homeserver.concurrency.periodic import LOG_AGAIN_SECONDS, PeriodicTask

LogEvent = dict[str, object]


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """The events that are logged meanwhile."""
    events: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("job"):
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


class Job:
    """Work whose runs are recorded, and which fails or lasts as the test wants."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.clock = Clock()
        self.runs: list[float] = []
        self.error: Exception | None = None
        self.lasting: Deferred[None] | None = None
        self.task = PeriodicTask(self.clock, seconds, self.work, name="a job")

    def work(self) -> Deferred[None] | None:
        self.runs.append(self.clock.seconds())
        if self.error is not None:
            raise self.error
        return self.lasting


def test_work_is_done_on_a_fixed_grid() -> None:
    """Values that are measured each second are measured at whole seconds."""
    job = Job(0.5)
    job.task.start()

    job.clock.pump([0.375] * 6)

    assert job.runs == [0.75, 1.125, 1.5, 2.25]


def test_a_task_says_when_it_ran_and_will_run() -> None:
    """An operator sees in the metrics that a clean-up has not ended, or keeps failing."""
    job = Job()
    before = job.task.last_run_at, job.task.next_run_at
    job.task.start()
    job.error = ValueError("no luck")

    job.clock.advance(11)

    assert before == (None, None)
    assert (job.task.last_run_at, job.task.next_run_at, job.task.failures) == (11, 20, 1)
    job.task.stop()


def test_first_run_may_be_at_once() -> None:
    """Work left undone by the last process need not wait."""
    job = Job()
    job.task.start(now=True)

    job.clock.advance(10)

    assert job.runs == [0.0, 10.0]


def test_failing_work_continues(logged: list[LogEvent]) -> None:
    """The first error does not end the job."""
    job = Job()
    job.error = ValueError("not now")
    job.task.start()

    job.clock.pump([10] * 3)
    job.error = None
    job.clock.pump([10] * 2)

    assert job.runs == [10, 20, 30, 40, 50]
    assert [event["job"] for event in logged] == ["a job"] * 2
    assert "after {count} failures" in str(logged[1]["log_format"])
    assert logged[1]["count"] == 3


def test_asynchronous_work_may_fail_too(logged: list[LogEvent]) -> None:
    """Most jobs wait for the database, and fail with it."""
    job = Job()
    job.lasting = Deferred()
    job.task.start()
    job.clock.advance(10)

    job.lasting.errback(Failure(ValueError("lost")))
    job.lasting = None
    job.clock.advance(10)

    assert job.runs == [10, 20]
    assert isinstance(logged[0]["log_failure"], Failure)


def test_failures_do_not_fill_the_log(logged: list[LogEvent]) -> None:
    """A database that is unavailable for a night is logged now and then, not every second."""
    job = Job(1.0)
    job.error = ValueError("away")
    job.task.start()

    job.clock.pump([1.0] * int(2.5 * LOG_AGAIN_SECONDS))

    assert len(job.runs) == 2.5 * LOG_AGAIN_SECONDS
    assert len(logged) == 3


def test_work_never_overlaps_itself() -> None:
    """A slow database does not pile up runs; missed ones are skipped."""
    job = Job()
    job.lasting = Deferred()
    job.task.start()
    job.clock.pump([10] * 3)
    assert job.runs == [10]

    lasting, job.lasting = job.lasting, None
    job.clock.advance(5)
    lasting.callback(None)
    job.clock.advance(5)

    assert job.runs == [10, 40]


def test_stopping_waits_for_the_present_run() -> None:
    """Resources of a run are closed after it."""
    job = Job()
    job.lasting = lasting = Deferred()
    job.task.start()
    job.clock.advance(10)
    stopped: list[None] = []

    job.task.stop().addCallback(stopped.append)
    assert not stopped
    lasting.callback(None)

    assert stopped == [None]
    job.clock.advance(100)
    assert job.runs == [10]


def test_stopped_task_leaves_no_timer() -> None:
    """A stop between two runs is immediate, and one that never started may be stopped."""
    job = Job()
    stopped: list[None] = []
    job.task.stop().addCallback(stopped.append)
    job.task.start()

    job.task.stop().addCallback(stopped.append)

    assert stopped == [None, None]
    assert job.clock.getDelayedCalls() == []


def test_task_can_be_started_again_during_its_last_run() -> None:
    """There is one chain of runs even then."""
    job = Job()
    job.lasting = lasting = Deferred()
    job.task.start()
    job.clock.advance(10)
    job.task.stop()

    job.task.start(now=True)
    job.lasting = None
    lasting.callback(None)
    job.clock.pump([10] * 2)

    assert job.runs == [10, 20, 30]
