"""The log while the database fails, temporarily or permanently."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.batch import Batch, BatchStatement
from homeserver.storage.database.database import DatabaseUnavailable
from homeserver.streams.counters import Counters
from homeserver.streams.event_numbers import MIN_LEFT, EventNumbers
from homeserver.streams.log import STALLED_SECONDS, Log, LogBroken
from homeserver.streams.positions import Positions, position_at

PUT = BatchStatement("put", "INSERT INTO things SELECT unnest(%s::int8[])", columns=("int8",))


@dataclass(frozen=True)
class Happened:
    """A log entry of these tests."""

    position: int


class Scene:
    """A log on a clock that the test moves, and a database that the test controls."""

    def __init__(self, seconds: int = 60, numbers: int = 2 * MIN_LEFT, **options: Any) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.writes: list[Deferred[None]] = []
        now = self.now
        self.clock.advance(seconds)
        self.positions = Positions(self.clock, now, self.now)
        self.numbers = EventNumbers(0, numbers)
        self.clock.rightNow -= seconds
        counters = Counters(self.positions, self.numbers)
        self.log = Log(self.clock, self.write, counters, **options)

    @property
    def now(self) -> int:
        """The position of the present moment."""
        return position_at(self.clock.seconds())

    def write(self, _: Batch) -> Deferred[None]:
        self.writes.append(Deferred())
        return self.writes[-1]

    def append(self) -> Deferred[None]:
        position = self.log.next_position()
        return self.log.append(Happened(position), [PUT.row(position)])

    def refuse(self) -> None:
        """The database refuses the batch permanently."""
        self.writes[-1].errback(Failure(ValueError("read only")))


def errors_of(*waits: Deferred[None]) -> list[type[BaseException] | None]:
    """The types of the errors that waits ended with; fails where one has not ended."""
    found: list[type[BaseException] | None] = []
    for wait in waits:
        assert wait.called, "it is still waiting"
        wait.addBoth(
            lambda result: found.append(type(result.value) if isinstance(result, Failure) else None)
        )
    return found


def test_broken_log_fails_all_waiting_callers() -> None:
    """Clients get their error responses, and the shutdown finishes."""
    scene = Scene()
    in_flight = scene.append()
    scene.clock.advance(0)
    behind_it = scene.log.written()
    waiting, written, settled = scene.append(), scene.log.written(), scene.log.flush()

    scene.refuse()

    assert scene.log.broken.called
    assert errors_of(in_flight, behind_it, waiting, written, settled) == [LogBroken] * 5


def test_broken_log_refuses_new_entries() -> None:
    """A change that cannot be stored is never acknowledged to its client, however late it comes."""
    scene = Scene()
    done = scene.append()
    scene.clock.advance(0)
    scene.refuse()

    with pytest.raises(Unavailable):
        scene.log.check_open()
    late = scene.append(), scene.log.written(), scene.log.flush()

    assert errors_of(done, *late) == [LogBroken] * 4
    assert len(scene.writes) == 1


def test_log_continues_when_the_database_is_back() -> None:
    """Waiting changes become durable then; clients notice only the delay."""
    scene = Scene()
    done = scene.append()
    scene.clock.advance(0)

    scene.writes[0].errback(Failure(DatabaseUnavailable("disk full")))
    with pytest.raises(Unavailable):
        scene.log.check_open()
    scene.clock.advance(1)
    scene.writes[1].callback(None)

    assert errors_of(done) == [None]
    scene.log.check_open()


def test_stalled_write_refuses_new_work() -> None:
    """While the database does not answer, clients get an error instead of waiting."""
    scene = Scene()
    done = scene.append()
    scene.clock.advance(0)

    scene.clock.advance(STALLED_SECONDS)
    scene.log.check_open()
    scene.clock.advance(1)
    with pytest.raises(Unavailable):
        scene.log.check_open()
    scene.writes[0].callback(None)

    scene.log.check_open()
    assert errors_of(done) == [None]


def test_clock_is_read_once_for_each_batch() -> None:
    """Reading it costs more than counting; the order of the log needs no exact times."""
    scene = Scene()
    first = scene.append()
    scene.clock.advance(0)
    scene.clock.advance(5)
    began = scene.now
    scene.append()
    of_next_batch = scene.log.next_position()
    scene.clock.advance(5)
    still_of_it = scene.log.next_position()
    scene.writes[0].callback(None)

    assert errors_of(first) == [None]
    assert scene.log.position < began
    assert began <= of_next_batch < still_of_it < scene.now


def test_work_is_refused_before_positions_run_out() -> None:
    """Work that has begun can be finished: writers are refused at the start or not at all."""
    scene = Scene(seconds=60)
    scene.log.check_open()
    scene.clock.advance(59.9)
    scene.log.next_position()

    with pytest.raises(Unavailable):
        scene.log.check_open()
    scene.positions.bound = scene.positions.bound_ahead(60)

    scene.log.check_open()


def test_work_is_refused_before_event_numbers_run_out() -> None:
    """The same holds for the numbers of events."""
    scene = Scene(numbers=MIN_LEFT)
    scene.log.check_open()
    scene.log.next_event_number()

    with pytest.raises(Unavailable):
        scene.log.check_open()
    scene.numbers.reserve(2 * MIN_LEFT, 3 * MIN_LEFT)

    scene.log.check_open()


def test_subscribers_see_what_the_log_makes_of_an_entry() -> None:
    """Once it is durable, and once for all of them."""
    made: list[Happened] = []
    seen: list[Happened] = []

    def transcode(entry: Happened) -> Happened:
        made.append(replace(entry))
        return made[-1]

    scene = Scene(transcode=transcode)
    for _ in range(2):
        scene.log.subscribe(seen.extend)
    scene.append()
    scene.clock.advance(0)
    assert made == []

    scene.writes[-1].callback(None)

    assert len(made) == 1
    assert all(entry is made[0] for entry in seen)
    assert len(seen) == 2
