"""Durable timers: what is due is done in time, once, and after a stop as well."""

from twisted.internet.task import Clock

from homeserver.concurrency.clock import now_ms
from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.database import Connection
from homeserver.streams.durable_timer import MAX_SLEEP_SECONDS, DurableTimer
from tests.support.postgres import DatabaseTestCase


class SetClock(Clock):
    """A clock whose time of day can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = 1_000_000.0

    def wall_seconds(self) -> float:
        return self.seconds() + self.offset


class DurableTimerTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        async with self.db.connection() as connection:
            await connection.execute("CREATE TABLE waiting (due bigint)")
        self.clock = SetClock()
        self.done: list[int] = []
        self.error: Exception | None = None
        self.timer = self.make()

    def make(self) -> DurableTimer:
        return DurableTimer(self.db, self.clock, earliest, self.work, name="the test")

    async def clean_up(self) -> None:
        await self.timer.stop()
        await super().clean_up()

    async def work(self, now: int) -> None:
        """Do the earliest that is due."""
        if self.error is not None:
            raise self.error
        async with self.db.connection() as connection:
            cursor = await connection.execute(
                """
                DELETE FROM waiting
                 WHERE due = (SELECT min(due) FROM waiting WHERE due <= %s) RETURNING due
                """,
                (now,),
            )
            self.done += [due - 1_000_000_000 for (due,) in await cursor.fetchall()]

    async def add(self, seconds: float, *, notice: bool = True) -> None:
        due = now_ms(self.clock) + int(seconds * 1000)
        async with self.db.connection() as connection:
            await connection.execute("INSERT INTO waiting VALUES (%s)", (due,))
        if notice:
            self.timer.notice(due)

    async def idle(self) -> None:
        """Wait until the timer has done what is due."""
        for _ in range(1_000):
            if self.timer._running is None:
                return
            await self.db.run(nothing)
        raise AssertionError("the timer runs without end")

    async def test_each_row_is_done_when_it_is_due(self) -> None:
        """However many wait, the earliest determines the one timer."""
        self.timer.start()
        await self.idle()
        for seconds in (30, 10, 20):
            await self.add(seconds)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

        seen = []
        for _ in range(3):
            self.clock.advance(10)
            await self.idle()
            seen.append(list(self.done))

        self.assertEqual(seen, [[10_000], [10_000, 20_000], [10_000, 20_000, 30_000]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_what_became_due_while_the_server_was_stopped_is_done(self) -> None:
        """A restart loses nothing that waits."""
        await self.add(5, notice=False)
        await self.add(500, notice=False)
        self.clock.advance(10)

        self.timer.start()
        await self.idle()

        self.assertEqual(self.done, [5_000])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    async def test_a_row_that_is_noticed_while_others_are_done_is_not_forgotten(self) -> None:
        """A row may be committed between a look at the table and its end."""
        self.timer.start()
        self.timer.notice(now_ms(self.clock) + 1_000)
        await self.idle()

        await self.add(1, notice=False)
        self.clock.advance(1)
        await self.idle()

        self.assertEqual(self.done, [1_000])

    async def test_a_clock_that_is_set_delays_nothing_for_longer_than_a_minute(self) -> None:
        """The time of day determines what is due, not the seconds since the start."""
        self.timer.start()
        await self.idle()
        await self.add(3_600)
        self.clock.offset += 3_600

        self.clock.advance(MAX_SLEEP_SECONDS)
        await self.idle()

        self.assertEqual(self.done, [3_600_000])

    async def test_a_failure_is_repeated(self) -> None:
        """A passing error loses nothing; one of the database is not even logged."""
        for error in (ValueError("no luck"), Unavailable("gone")):
            self.error = error
            await self.add(0, notice=False)
            if not self.timer._is_started:
                self.timer.start()
            self.timer.notice(0)
            await self.idle()
            self.error = None
            self.clock.advance(1)
            await self.idle()

        self.assertEqual(len(self.done), 2)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_a_stopped_timer_does_nothing(self) -> None:
        """The database may be closed after the stop."""
        self.timer.start()
        await self.idle()
        await self.add(1)

        await self.timer.stop()
        self.clock.advance(10)
        self.timer.notice(0)

        self.assertEqual((self.done, self.clock.getDelayedCalls()), ([], []))


async def earliest(db: Connection) -> int | None:
    cursor = await db.execute("SELECT min(due) FROM waiting")
    row = await cursor.fetchone()
    return row[0] if row else None


async def nothing(db: Connection) -> None:
    await db.execute("SELECT 1")
