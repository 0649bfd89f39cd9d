"""The record of what other servers lack: it only says that they lack more, until it is gone."""

from collections.abc import Sequence

from homeserver.storage.database.batch import Batch
from homeserver.storage.federation.outbox import (
    UPSERT_OUTBOX_ROOM,
    RoomBehind,
    destinations_behind,
    mark_caught_up,
    resume_sticky,
    rooms_behind,
)
from tests.support.postgres import DatabaseTestCase

THERE = "there.example"


class OutboxTests(DatabaseTestCase):
    async def record(self, *rows: Sequence[object]) -> None:
        """Record rows of one batch."""
        batch = Batch()
        for row in rows:
            batch.add(UPSERT_OUTBOX_ROOM.row(*row))
        await self.db.write_batch(batch)

    async def behind(self, destination: str = THERE) -> list[RoomBehind]:
        return await self.db.run(rooms_behind, destination, 10)

    async def test_the_first_of_a_batch_counts(self) -> None:
        """In whatever order its rows are."""
        await self.record((THERE, 1, 7, 7), (THERE, 1, 5, 5), (THERE, 1, 9, 9), (THERE, 2, 8, 8))

        self.assertEqual(await self.behind(), [RoomBehind(1, 5, 5), RoomBehind(2, 8, 8)])

    async def test_later_events_change_nothing(self) -> None:
        """The server gets the newest event in any case."""
        await self.record((THERE, 1, 5, 5))

        await self.record((THERE, 1, 7, 7))

        self.assertEqual(await self.behind(), [RoomBehind(1, 5, 5)])

    async def test_a_join_and_missed_events_add_up(self) -> None:
        """Whichever comes first: all that stick, and the newest event."""
        await self.record((THERE, 1, None, 3), (THERE, 2, 6, 6))

        await self.record((THERE, 1, 9, 9), (THERE, 2, None, 4))

        self.assertEqual(await self.behind(), [RoomBehind(1, 9, 3), RoomBehind(2, 6, 4)])

    async def test_what_was_sent_is_not_sent_again(self) -> None:
        """A part of the sticky events of a room, or all that the server lacked."""
        await self.record((THERE, 1, 5, 5), (THERE, 2, 6, 6), ("other.example", 1, 5, 5))

        await self.db.run(resume_sticky, THERE, 1, 8)
        await self.db.run(resume_sticky, THERE, 1, 7)
        await self.db.run(mark_caught_up, THERE, [2, 3])

        self.assertEqual(await self.behind(), [RoomBehind(1, 5, 8)])
        self.assertEqual(await self.behind("other.example"), [RoomBehind(1, 5, 5)])
        self.assertEqual(sorted(await self.db.run(destinations_behind)), ["other.example", THERE])
