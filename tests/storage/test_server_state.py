"""Server state: its name, its positions, its starts."""

from twisted.internet.defer import Deferred, gatherResults

from homeserver.storage.database.server_state import (
    WrongServer,
    claim_server_name,
    raise_position_bound,
    reserve_event_numbers,
    reserve_positions,
)
from tests.support.postgres import DatabaseTestCase


class ServerStateTests(DatabaseTestCase):
    async def test_database_keeps_its_server_name(self) -> None:
        """An error in the configuration must not mix two servers' users."""
        await self.db.run(claim_server_name, "example.org")
        await self.db.run(claim_server_name, "example.org")

        with self.assertRaisesRegex(WrongServer, "belongs to the server example.org"):
            await self.db.run(claim_server_name, "example.com")

    async def test_reserved_positions_are_never_given_out_again(self) -> None:
        """A client's token from before a crash stays below all later positions."""
        first = await self.db.run(reserve_positions, 1000, above=5)
        second = await self.db.run(reserve_positions, 10, above=5)
        await self.db.run(raise_position_bound, 3000)
        await self.db.run(raise_position_bound, 2000)

        third = await self.db.run(reserve_positions, 10, above=5)

        self.assertEqual((first, second, third), (5, 1005, 3000))

    async def test_concurrent_reservations_do_not_overlap(self) -> None:
        """Two processes can number the events of one database."""
        starts = await gatherResults(
            [Deferred.fromCoroutine(self.db.run(reserve_event_numbers, 10)) for _ in range(8)]
        )

        self.assertEqual(sorted(starts), list(range(0, 80, 10)))
