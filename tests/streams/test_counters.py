"""The reservation of positions and event numbers, on a real database."""

from twisted.internet.task import Clock

from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.database import Connection
from homeserver.streams.counters import (
    BOUND_SECONDS,
    CHECK_SECONDS,
    CounterReserve,
    Counters,
    open_counters,
)
from homeserver.streams.event_numbers import MIN_LEFT
from homeserver.streams.log import Log
from homeserver.streams.positions import position_at
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import until

COUNT = 2 * MIN_LEFT
HOUR = 3600


class WallClock(Clock):
    """A clock whose wall clock can be set, while its timers go on."""

    ahead = 0.0  # seconds

    def wall_seconds(self) -> float:
        return self.seconds() + self.ahead


class CounterReserveTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.clock = WallClock()
        self.clock.advance(1_800_000_000)
        self.counters = await self.open()
        self.positions, self.numbers = self.counters.positions, self.counters.numbers
        self.log = Log(self.clock, self.db.write_batch, self.counters)
        self.reserve = CounterReserve(self.db, self.clock, self.counters, COUNT)
        self.reserve.start()

    async def clean_up(self) -> None:
        await self.reserve.stop()
        await super().clean_up()

    async def open(self) -> Counters:
        """The counters of a process that starts now."""
        return await open_counters(self.db, self.clock, COUNT)

    async def execute(self, statement: str) -> None:
        async def run(db: Connection) -> None:
            await db.execute(statement.encode())

        await self.db.run(run)

    def use_positions(self, seconds: float) -> int:
        """Take a position `seconds` from now; returns it."""
        self.clock.advance(seconds)
        self.positions.begin_batch()
        return self.log.next_position()

    async def use_positions_of_an_interval(self) -> int:
        """Let the time between two checks pass, and a check; returns a position from before it."""
        taken = self.use_positions(CHECK_SECONDS)
        await self.reserve.stop()
        self.reserve.start()
        return taken

    async def test_process_begins_above_all_that_was_handed_out(self) -> None:
        """A client's token from before a crash stays below, wherever the clock is."""
        before = [self.use_positions(seconds) for seconds in (0, 5, 45)]
        for jump in (-HOUR, 0, HOUR):
            with self.subTest(jump=jump):
                self.clock.ahead += jump

                log = Log(self.clock, self.db.write_batch, await self.open())

                first = log.next_position()
                assert first > log.position >= max(before)
                before.append(first)

    async def test_bound_is_moved_before_it_is_reached(self) -> None:
        """Positions follow the clock for as long as the database answers."""
        for _ in range(10):
            taken = await self.use_positions_of_an_interval()
            assert taken == position_at(self.clock.wall_seconds())
            self.log.check_open()

    async def test_jumps_of_an_hour_block_no_one(self) -> None:
        """Administrators set the clock while users write; no order changes."""
        taken = [self.use_positions(0)]
        for jump in (HOUR, -HOUR, -HOUR, HOUR):
            self.clock.ahead += jump
            for _ in range(20):
                self.log.check_open()
                taken += [self.use_positions(0), self.log.next_position()]
                taken.append(await self.use_positions_of_an_interval())

        assert taken == sorted(set(taken))

    async def test_database_error_does_not_end_the_reservation(self) -> None:
        """What could not be reserved is reserved when the database is back."""
        for _ in range(COUNT // 2 + 1):
            self.log.next_event_number()
        await self.execute("ALTER TABLE server_state RENAME TO lost")
        self.use_positions(BOUND_SECONDS - 0.1)
        await self.reserve.stop()
        assert self.positions.is_low
        self.flushLoggedErrors()

        await self.execute("ALTER TABLE lost RENAME TO server_state")
        self.reserve.start()
        self.clock.advance(CHECK_SECONDS)

        await until(lambda: not self.positions.is_low and self.numbers.left > COUNT)

    async def test_counters_that_run_out_are_refused(self) -> None:
        """While nothing can be reserved writers get an error, and no change is acknowledged."""
        await self.reserve.stop()
        self.use_positions(BOUND_SECONDS - 1e-6)
        for _ in range(COUNT):
            self.log.next_event_number()

        with self.assertRaises(Unavailable):
            self.log.check_open()
        with self.assertRaises(Unavailable):
            self.log.next_event_number()
        with self.assertRaises(Unavailable):
            for _ in range(10):
                self.log.next_position()

    async def test_range_of_another_process_is_skipped(self) -> None:
        """Each process uses the event numbers that it reserved itself."""
        other = (await self.open()).numbers
        for _ in range(COUNT // 2 + 1):
            self.log.next_event_number()
        self.clock.advance(CHECK_SECONDS)
        await until(lambda: self.numbers.left > COUNT)

        own = {self.log.next_event_number() for _ in range(self.numbers.left)}
        theirs = {other.next() for _ in range(COUNT)}

        self.assertEqual(own & theirs, set())
        self.assertEqual(len(theirs), COUNT)
