"""What a batch does to one row: it loses no change, and may be written again.

The connection may break after a commit and before its answer; then the batch is written a second
time. Each statement is tried alone and together with each other one of its table, where the table
is empty and where it has the row.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from homeserver.storage.database.batch import Batch, BatchStatement, Row
from tests.storage.database.test_batch import statements
from tests.support.postgres import DatabaseTestCase

TARGET = re.compile(r"^\s*(?:INSERT INTO|UPDATE|DELETE FROM)\s+(\w+)")
NAMES = (
    re.compile(r"AS \w+ \(([\w\s,]+)\)"),
    re.compile(r"INSERT INTO \w+(?: AS \w+)? \(([\w\s,]+)\)"),
    re.compile(r"WHERE (\w+) = ANY"),
)
Values = dict[str, Any]  # by the type of the column
KEY: Values = {"int4": 1, "int8": 1, "text": "1", "bytea": b"1", "bool": True}
FIRST: Values = {"int4": 2, "int8": 2, "text": "2", "bytea": b"2", "bool": False}
SECOND: Values = {"int4": 3, "int8": 3, "text": "3", "bytea": b"3", "bool": True}
KEY_NAMES = {"target", "destinations"}  # of columns that stand for those of a key
ARRAYS = {"auth_events": "{1}"}

NEVER_TOGETHER = {
    # Only what was published is sent, and then deleted.
    ("queue_device_list", "delete_queued_device_list"),
    ("insert_outgoing_to_device", "delete_outgoing_to_device"),
    # The index has batches of its own, which are never written again.
    ("insert_search_removal", "delete_search_removal"),
    # No alias of a room is added as long as the room is being replaced.
    ("insert_alias", "move_aliases"),
}


class OneRowTests(DatabaseTestCase):
    timeout = 120

    async def setUp(self) -> None:
        await super().setUp()
        self.connection = psycopg.connect(self.dsn, autocommit=True)
        self.addCleanup(self.connection.close)
        self.keys: dict[str, set[str]] = defaultdict(set)
        for table, name in self.connection.execute(
            """
            SELECT pg_class.relname, attname
              FROM pg_index
              JOIN pg_class ON pg_class.oid = indrelid
              JOIN pg_attribute ON attrelid = pg_class.oid AND attnum = ANY (indkey)
             WHERE indisunique
            """
        ):
            self.keys[table].add(name)

    async def test_second_attempt_changes_nothing(self) -> None:
        """Nor does it fail, whatever else is in the batch: its writers were to be acknowledged."""
        tried = 0
        for of_table, some, has_row in self.cases():
            batch = await self.written_together(of_table, some, has_row=has_row)
            if batch is None:
                continue
            stored = self.stored(some[0])

            await self.db.write_batch(batch)

            assert self.stored(some[0]) == stored, [each.name for each in some]
            tried += 1
        assert tried > 300

    async def test_no_change_is_lost(self) -> None:
        """A batch of two changes has the result of one after the other, in either order."""
        for of_table, some, has_row in self.cases():
            if await self.written_together(of_table, some, has_row=has_row) is None:
                continue
            stored = self.stored(some[0])
            in_turn = []
            for order in (1, -1):
                await self.prepare(of_table, has_row=has_row)
                for row in self.rows(some)[::order]:
                    try:
                        await self.write(row)
                    except psycopg.errors.UniqueViolation:  # of what is written once only
                        break
                in_turn.append(self.stored(some[0]))

            assert stored in in_turn, [each.name for each in some]

    def cases(
        self,
    ) -> Iterator[tuple[Sequence[BatchStatement], Sequence[BatchStatement], bool]]:
        """All statements of a table, one or two of them, and whether the table has the row."""
        by_table: dict[str, list[BatchStatement]] = defaultdict(list)
        for statement in statements():
            by_table[table_of(statement)].append(statement)
        for of_table in by_table.values():
            pairs = itertools.permutations(of_table, 2)
            for some in (*((each,) for each in of_table), *pairs):
                names = tuple(each.name for each in some)
                if NEVER_TOGETHER.isdisjoint((names, names[::-1])):
                    for has_row in (False, True):
                        yield of_table, some, has_row

    async def written_together(
        self,
        of_table: Sequence[BatchStatement],
        some: Sequence[BatchStatement],
        *,
        has_row: bool,
    ) -> Batch | None:
        """A batch of a row of each statement, which was written; `None` if it was refused."""
        await self.prepare(of_table, has_row=has_row)
        try:
            return await self.write(*self.rows(some))
        except psycopg.errors.UniqueViolation:
            return None

    async def prepare(self, of_table: Sequence[BatchStatement], *, has_row: bool) -> None:
        """Empty a table, and insert the row; there is what the statements look up."""
        table = table_of(of_table[0])
        self.connection.execute(f"TRUNCATE {table} CASCADE")
        for statement in (
            "INSERT INTO users (user_id, created_ms) VALUES ('1', 1)",
            "INSERT INTO devices (user_id, device_id, created_ms) VALUES ('1', '1', 1)",
            "INSERT INTO rooms (room, version, creator) VALUES (1, '1', 1)",
        ):
            if f"INTO {table} " not in statement or has_row:
                self.connection.execute(f"{statement} ON CONFLICT DO NOTHING")
        inserts = [each for each in of_table if "INSERT INTO" in each.sql]
        if has_row and inserts and table != "rooms":
            await self.write(self.row(inserts[0], FIRST))

    async def write(self, *rows: Row) -> Batch:
        batch = Batch()
        for row in rows:
            batch.add(row)
        await self.db.write_batch(batch)
        return batch

    def rows(self, some: Sequence[BatchStatement]) -> list[Row]:
        return [self.row(*each) for each in zip(some, (FIRST, SECOND), strict=False)]

    def row(self, statement: BatchStatement, others: Values) -> Row:
        """A row with the one key that is used here, and with other values beside it."""
        keys = self.keys[table_of(statement)] | KEY_NAMES
        return statement.row(
            *(
                ARRAYS.get(name, KEY[kind] if name in keys else others[kind])
                for name, kind in zip(names_of(statement), statement.columns, strict=True)
            )
        )

    def stored(self, statement: BatchStatement) -> list[Any]:
        """All rows of a statement's table."""
        table = table_of(statement)
        return self.connection.execute(f"SELECT * FROM {table} ORDER BY {table}::text").fetchall()


def table_of(statement: BatchStatement) -> str:
    """The table that a statement changes."""
    found = TARGET.match(statement.sql)
    assert found is not None, statement.name
    return found[1]


def names_of(statement: BatchStatement) -> list[str]:
    """The names of the columns."""
    for pattern in NAMES:
        found = pattern.search(statement.sql)
        names = [] if found is None else [name.strip() for name in found[1].split(",")]
        if len(names) >= len(statement.columns):
            return names[: len(statement.columns)]
    raise AssertionError(f"{statement.name} has no names")
