"""Events by their ids: found by an index that has only hashes of them."""

from typing import Any

import psycopg
import pytest

from homeserver.storage.database.batch import Batch, Row
from homeserver.storage.database.database import Connection
from homeserver.storage.retention.purged_history import place_in_history
from homeserver.storage.rooms.event_graph import known_events
from homeserver.storage.rooms.events import (
    INSERT_EVENT,
    event_numbers,
    rooms_with_event,
    transactions_of_device,
)
from tests.support.postgres import DatabaseTestCase

# In room versions 1 and 2 other servers choose event ids.
IDS = ["$plain", "$with\\backslash:example.org", "$\\x41:example.org", "$ü😀:example.org", "\\x41"]


def event_row(number: int, event_id: str, room: int = 1, device_id: str = "DEVICE") -> Row:
    """A row of `events`."""
    values: dict[int, Any] = {
        0: number, 1: room, 2: number, 3: 1, 4: 1, 5: 1, 7: event_id, 8: b"{}", 9: b"root",
        13: device_id, 14: f"txn{number}",
    }  # fmt: skip
    return INSERT_EVENT.row(*[values.get(place) for place in range(len(INSERT_EVENT.columns))])


class LookupTests(DatabaseTestCase):
    async def write(self, *rows: Row) -> None:
        batch = Batch()
        for row in rows:
            batch.add(row)
        await self.db.write_batch(batch)

    async def test_events_are_found_whatever_characters_their_ids_have(self) -> None:
        """A backslash is an escape in `bytea`; it may not make two ids equal, or fail."""
        await self.write(*[event_row(number, each) for number, each in enumerate(IDS, 1)])

        found = dict(await self.db.run(event_numbers, 1, [*IDS, "$A:example.org", "A"]))

        self.assertEqual(found, {each: number for number, each in enumerate(IDS, 1)})
        self.assertEqual(await self.db.run(known_events, 1, IDS[:2]), dict.fromkeys(IDS[:2], False))
        self.assertEqual(await self.db.run(place_in_history, 1, IDS[1]), (1, 2))
        self.assertEqual(await self.db.run(event_numbers, 1, []), [])

    async def test_two_rooms_may_have_the_same_event_id_and_one_may_not_twice(self) -> None:
        """Room versions 1 and 2 allow the former; the latter would be two events for one id."""
        await self.write(event_row(1, "$same"), event_row(2, "$same", room=2))

        self.assertEqual(sorted(await self.db.run(rooms_with_event, "$same")), [1, 2])
        with pytest.raises(psycopg.errors.UniqueViolation):
            await self.write(event_row(3, "$same"))

    async def test_transactions_are_those_of_the_device(self) -> None:
        """The index has only a hash of the device."""
        await self.write(event_row(1, "$a"), event_row(2, "$b", device_id="OTHER"))

        found = await self.db.run(transactions_of_device, 1, "DEVICE", 10)

        self.assertEqual([event_id for *_, event_id in found], ["$a"])

    async def test_indexes_are_used(self) -> None:
        """Planner and index must agree on what the expressions are."""
        queries = {
            "SELECT FROM events WHERE event_key(event_id) = ANY(event_keys(%s))": "events_event_id",
            "SELECT FROM events WHERE sender = 1 AND txn_id IS NOT NULL AND hashtext(device_id)"
            " = hashtext((%s::text[])[1]) ORDER BY event DESC": "events_transactions",
        }

        async def plan(db: Connection, query: str) -> str:
            await db.execute("SET enable_seqscan = off")
            cursor = await db.execute(f"EXPLAIN {query}".encode(), (["$a"],))
            return "".join([line for (line,) in await cursor.fetchall()])

        for query, index in queries.items():
            text = await self.db.run(plan, query)
            assert index in text, text
            assert "Index Cond" in text, text
            assert "Sort" not in text, text

    async def test_key_is_the_beginning_of_the_sha256(self) -> None:
        """Nobody can make two ids with the same key."""

        async def key(db: Connection) -> Any:
            cursor = await db.execute("SELECT event_key('abc')::text")
            return await cursor.fetchone()

        self.assertEqual(await self.db.run(key), ("ba7816bf-8f01-cfea-4141-40de5dae2223",))
