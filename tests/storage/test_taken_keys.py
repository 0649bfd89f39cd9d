"""Keys of rows: none is used twice, and a lost row does not go unnoticed."""

from typing import Any

import psycopg
import pytest

from homeserver.storage.database.batch import Batch, Row
from homeserver.storage.database.database import Connection, DatabaseUnavailable
from homeserver.storage.rooms.events import (
    CORRECT_CURRENT_STATE,
    INSERT_CURRENT_STATE,
    INSERT_EVENT,
)
from homeserver.storage.rooms.mentions import INSERT_MENTION
from homeserver.storage.rooms.relations import INSERT_RELATION
from tests.support.postgres import DatabaseTestCase

ROOM = 1
HASH = b"h" * 32


def event_row(number: int, event_id: str, *, position: int | None = None) -> Row:
    """A row of `events`."""
    values: dict[int, Any] = {
        0: number, 1: ROOM, 2: position or number, 3: 1, 4: 1, 5: 1, 7: event_id, 8: b"{}", 9: HASH,
    }  # fmt: skip
    return INSERT_EVENT.row(*[values.get(place) for place in range(len(INSERT_EVENT.columns))])


def relation_row(child: int, child_id: str) -> Row:
    """A row of `relations`."""
    return INSERT_RELATION.row(
        child, ROOM, "$parent", "m.thread", None, child_id, 1, 1, 1, child, 1
    )


class InsertTests(DatabaseTestCase):
    async def write(self, *rows: Row, times: int = 1) -> None:
        batch = Batch()
        for row in rows:
            batch.add(row)
        for _ in range(times):
            await self.db.write_batch(batch)

    async def test_batch_that_is_written_again_changes_nothing(self) -> None:
        """After a broken connection it is unknown whether a batch was committed."""
        rows = [
            event_row(7, "$event"),
            INSERT_CURRENT_STATE.row(ROOM, 7, HASH, None),
            relation_row(7, "$event"),
            INSERT_MENTION.row(ROOM, "@bob:example.org", 7, 7),
        ]

        await self.write(*rows, times=2)

        async def count(db: Connection) -> int:
            cursor = await db.execute(
                """
                SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM current_states)
                       + (SELECT count(*) FROM relations) + (SELECT count(*) FROM mentions)
                """
            )
            return (await cursor.fetchall())[0][0]

        self.assertEqual(await self.db.run(count), 4)

    async def test_other_event_at_a_taken_number_is_refused(self) -> None:
        """Otherwise the event would be skipped although its sender got a success."""
        await self.check_refused(event_row(7, "$first"), event_row(7, "$second"), "events_pkey")

    async def test_other_event_at_a_taken_number_is_refused_by_a_second_attempt(self) -> None:
        """The connection may break before the batch is refused."""
        await self.write(event_row(7, "$first"))
        batch = Batch()
        batch.add(event_row(7, "$second"))

        for message in ("events_pkey", "other content"):
            with pytest.raises(psycopg.errors.UniqueViolation, match=message):
                await self.db.write_batch(batch)

    async def test_other_state_at_a_taken_position_is_refused(self) -> None:
        """The room would continue with a state that no restart finds again."""
        await self.check_refused(
            INSERT_CURRENT_STATE.row(ROOM, 7, HASH, None),
            INSERT_CURRENT_STATE.row(ROOM, 7, b"o" * 32, None),
            "current_states_pkey",
        )
        await self.check_refused(
            INSERT_CURRENT_STATE.row(ROOM, 8, HASH, None),
            INSERT_CURRENT_STATE.row(ROOM, 8, HASH, '["$a"]'),
            "current_states_pkey",
        )

    async def test_other_relation_of_a_taken_number_is_refused(self) -> None:
        """A thread would lack a message."""
        await self.check_refused(relation_row(7, "$first"), relation_row(7, "$second"))

    async def test_other_mention_at_a_taken_position_is_refused(self) -> None:
        """A user would not be notified of a mention."""
        await self.check_refused(
            INSERT_MENTION.row(ROOM, "@bob:example.org", 7, 7),
            INSERT_MENTION.row(ROOM, "@bob:example.org", 7, 8),
        )

    async def test_two_events_of_one_number_in_a_batch_are_refused(self) -> None:
        """Otherwise both writers would believe that their event is stored."""
        with pytest.raises(psycopg.Error) as caught:
            await self.write(event_row(7, "$first"), event_row(7, "$second"))

        assert not isinstance(caught.value, DatabaseUnavailable)

    async def test_rechecked_state_replaces_the_old_one(self) -> None:
        """The re-check does this on purpose, even within one commit whose outcome is unknown."""
        old, new = b"o" * 32, b"n" * 32
        await self.write(INSERT_CURRENT_STATE.row(ROOM, 7, old, None))

        await self.write(
            CORRECT_CURRENT_STATE.row(ROOM, 7, new, None),
            INSERT_CURRENT_STATE.row(ROOM, 8, old, None),
            CORRECT_CURRENT_STATE.row(ROOM, 8, new, None),
            times=2,
        )

        async def read(db: Connection) -> list[tuple[int, bytes]]:
            cursor = await db.execute("SELECT position, root FROM current_states ORDER BY 1")
            return await cursor.fetchall()

        self.assertEqual(await self.db.run(read), [(7, new), (8, new)])

    async def check_refused(self, first: Row, second: Row, message: str = "other content") -> None:
        await self.write(first)
        with pytest.raises(psycopg.errors.UniqueViolation, match=message):
            await self.write(second)
