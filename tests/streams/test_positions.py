"""The reservation of positions, on a real database."""

from twisted.internet.task import Clock

from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.database import Connection
from homeserver.streams.log import Log
from homeserver.streams.positions import CHECK_SECONDS, PositionReserve, reserve_first_positions
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import until

COUNT = 1_000


class PositionReserveTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.clock = Clock()
        first = await reserve_first_positions(self.db, COUNT)
        self.log = Log(self.clock, self.db.write_batch, *first)
        self.reserve = PositionReserve(self.db, self.clock, self.log, COUNT)
        self.reserve.start()

    async def clean_up(self) -> None:
        await self.reserve.stop()
        await super().clean_up()

    async def execute(self, statement: str) -> None:
        async def run(db: Connection) -> None:
            await db.execute(statement.encode())

        await self.db.run(run)

    async def test_database_error_does_not_end_the_reservation(self) -> None:
        """Positions are reserved again after a failed reservation."""
        for _ in range(COUNT // 2 + 1):
            self.log.next_position()
        await self.execute("ALTER TABLE server_state RENAME TO lost")
        self.clock.advance(CHECK_SECONDS)
        await self.reserve.stop()
        assert self.log.positions_left < COUNT // 2
        self.flushLoggedErrors()

        await self.execute("ALTER TABLE lost RENAME TO server_state")
        self.reserve.start()
        self.clock.advance(CHECK_SECONDS)

        await until(lambda: self.log.positions_left > COUNT)

    async def test_positions_that_run_out_are_refused(self) -> None:
        """While nothing can be reserved writers get an error, and no change is acknowledged."""
        for _ in range(COUNT):
            self.log.next_position()

        with self.assertRaises(Unavailable):
            self.log.check_open()
        with self.assertRaises(Unavailable):
            self.log.next_position()

    async def test_range_of_another_process_is_skipped(self) -> None:
        """Each process uses what it reserved itself."""
        other = Log(
            self.clock,
            self.db.write_batch,
            *await reserve_first_positions(self.db, COUNT),
        )
        for _ in range(COUNT // 2 + 1):
            self.log.next_position()
        self.clock.advance(CHECK_SECONDS)
        await until(lambda: self.log.positions_left > COUNT)

        own = {self.log.next_position() for _ in range(self.log.positions_left)}
        theirs = {other.next_position() for _ in range(COUNT)}

        self.assertEqual(own & theirs, set())
        self.assertEqual(len(theirs), COUNT)
