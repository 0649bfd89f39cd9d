"""Batches: rows are read back as they were written, and values that cannot be stored fail early."""

import importlib
import pkgutil
import struct
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import Transformer
from psycopg.pq import Format

import homeserver.storage
from homeserver.storage.database.batch import (
    COLUMN_TYPES,
    Batch,
    BatchStatement,
    Row,
    _array,
    _combine,
    _combine_single,
)
from homeserver.storage.database.database import Connection
from tests.support.postgres import DatabaseTestCase

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "bytea": st.binary(),
    "float8": st.floats(allow_nan=False),
    "int4": st.integers(-(2**31), 2**31 - 1),
    "int8": st.integers(-(2**63), 2**63 - 1),
    "text": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
}

PUT = BatchStatement(
    "put",
    """
    INSERT INTO things (id, name, data, flag)
    SELECT * FROM unnest(%s::int8[], %s::text[], %s::bytea[], %s::bool[])
        ON CONFLICT (id) DO UPDATE SET name = excluded.name
    """,
    columns=("int8", "text", "bytea", "bool"),
    key=(0,),
)
COUNT = BatchStatement(
    "count",
    "INSERT INTO counts SELECT * FROM unnest(%s::int4[])",
    columns=("int4",),
)

RENAME = BatchStatement(
    "a_rename",
    """
    UPDATE things SET name = new.name FROM unnest(%s::int8[], %s::text[]) AS new (id, name)
     WHERE things.id = new.id
    """,
    columns=("int8", "text"),
    late=True,
)
FAIL = BatchStatement(
    "fail", "UPDATE things SET id = 1 / unnest(%s::int4[])", columns=("int4",), late=True
)


@given(st.data())
def test_arrays_are_what_postgresql_expects(data: st.DataObject) -> None:
    """The binary form made here reads back, by psycopg's own loader, as the values put in."""
    name = data.draw(st.sampled_from(sorted(VALUES)))
    values = data.draw(st.lists(st.none() | VALUES[name], min_size=1, max_size=20))
    kind = COLUMN_TYPES[name]

    array = _array(kind, [None if value is None else kind.encode(value) for value in values])

    loader = Transformer().get_loader(kind.array_oid, Format.BINARY)
    assert loader.load(array) == values


@pytest.mark.parametrize(
    "values",
    [
        (2**63, "name", b"", True),
        (1, "a\0b", b"", True),
        (1, "\ud800", b"", True),
        (1, "name", "text", True),
        ("1", "name", b"", True),
        (1, "name", b""),
    ],
)
def test_row_that_cannot_be_stored_is_refused_when_it_is_made(values: tuple[Any, ...]) -> None:
    """A bad value is its writer's error; in a batch it would block all writers."""
    with pytest.raises((ValueError, TypeError, struct.error)):
        PUT.row(*values)


def test_statement_must_have_a_parameter_for_each_column() -> None:
    """An error in a declaration is found when the module is imported, not at the first write."""
    with pytest.raises(ValueError, match="must be that of"):
        BatchStatement("slip", "INSERT INTO t SELECT unnest(%s::int4[])", ("int4", "text"))


class WriteTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.db.run(self._create_tables)

    async def _create_tables(self, db: Connection) -> None:
        await db.execute(
            "CREATE TABLE things (id int8 PRIMARY KEY, name text, data bytea, flag bool)"
        )
        await db.execute("CREATE TABLE counts (n int4)")

    async def write(self, *rows: Row) -> None:
        batch = Batch()
        for row in rows:
            batch.add(row)
        await self.db.write_batch(batch)

    async def things(self) -> list[tuple[Any, ...]]:
        async def read(db: Connection) -> list[tuple[Any, ...]]:
            cursor = await db.execute("SELECT id, name, data, flag FROM things ORDER BY id")
            return await cursor.fetchall()

        return await self.db.run(read)

    async def test_rows_of_several_statements_are_written_together(self) -> None:
        """One commit contains all changes of one moment."""
        await self.write(
            PUT.row(2, 'ü\\"{},', b"\0\xff", True),
            COUNT.row(7),
            PUT.row(1, None, memoryview(b"view"), None),
        )

        async def count(db: Connection) -> Any:
            return await (await db.execute("SELECT n FROM counts")).fetchall()

        self.assertEqual(
            await self.things(), [(1, None, b"view", None), (2, 'ü\\"{},', b"\0\xff", True)]
        )
        self.assertEqual(await self.db.run(count), [(7,)])

    async def test_last_row_with_the_same_key_wins(self) -> None:
        """Two changes of one thing in one batch leave the newer one."""
        await self.write(PUT.row(1, "old", b"", True), PUT.row(1, "new", b"", True))

        self.assertEqual([name for _, name, _, _ in await self.things()], ["new"])

    async def test_recurring_combinations_are_prepared_once(self) -> None:
        """PostgreSQL plans a combination of statements once, in whatever order rows arrive."""
        for number in range(4):
            rows = [PUT.row(number, "x", b"", True), COUNT.row(number)]
            await self.write(*(rows if number % 2 else reversed(rows)))

        async def prepared(db: Connection) -> Any:
            cursor = await db.execute(
                "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'WITH batch%'"
            )
            return await cursor.fetchone()

        writer = self.db._writer
        assert writer is not None
        self.assertEqual(await prepared(writer), (1,))

    async def test_values_are_made_when_they_are_written(self) -> None:
        """By a function of the column, for one row and for many; a null stays one."""
        put = replace(PUT, name="put_reversed", at_write={2: lambda value: bytes(value)[::-1]})

        await self.write(put.row(1, "x", b"abc", True))
        await self.write(put.row(2, "x", None, True), put.row(3, "x", b"def", True))

        self.assertEqual([data for _, _, data, _ in await self.things()], [b"cba", None, b"fed"])

    async def test_statement_without_a_form_for_one_row_takes_an_array_of_one(self) -> None:
        """A few statements have their arrays in another place than after `FROM`."""
        flag = BatchStatement("flag", "UPDATE things SET flag = id = ANY(%s::int8[])", ("int8",))
        await self.write(PUT.row(1, "x", b"", True), PUT.row(2, "x", b"", True))

        await self.write(flag.row(2))

        self.assertEqual([(1, False), (2, True)], [(row[0], row[3]) for row in await self.things()])

    async def test_second_attempt_expects_the_rows_of_the_first(self) -> None:
        """Where only a repeated batch may find its keys taken, no other one may."""
        add = BatchStatement(
            "add",
            "INSERT INTO things (id) SELECT * FROM unnest(%s::int8[])",
            columns=("int8",),
            if_repeated=" ON CONFLICT (id) DO NOTHING",
        )
        for rows in ([add.row(1)], [add.row(2), add.row(3)], [add.row(4), RENAME.row(4, "x")]):
            batch, other = Batch(), Batch()
            for row in rows:
                batch.add(row)
                other.add(row)
            await self.db.write_batch(batch)

            await self.db.write_batch(batch)
            with pytest.raises(psycopg.errors.UniqueViolation):
                await self.db.write_batch(other)

        self.assertEqual([number for number, *_ in await self.things()], [1, 2, 3, 4])

    async def test_combinations_beyond_those_that_stay_prepared_are_written(self) -> None:
        """PostgreSQL keeps a bounded number of statements; old ones are prepared again."""
        puts = [replace(PUT, name=f"put_{number}") for number in range(130)]

        for _ in range(2):
            for number, put in enumerate(puts):
                await self.write(put.row(number, "x", b"", True))

        self.assertEqual(len(await self.things()), 130)

    async def test_writer_continues_after_a_failed_transaction(self) -> None:
        """After a rollback psycopg has PostgreSQL forget all prepared statements."""
        await self.write(PUT.row(1, "old", b"", True))
        with pytest.raises(psycopg.Error):
            await self.write(PUT.row(2, "old", b"", True), FAIL.row(0))

        await self.write(PUT.row(3, "new", b"", True))

        self.assertEqual([number for number, *_ in await self.things()], [1, 3])

    async def test_late_statement_changes_rows_of_its_own_batch(self) -> None:
        """An event and its redaction may come so close that they are written together."""
        await self.write(RENAME.row(1, "new"), PUT.row(1, "old", b"", True))

        self.assertEqual([name for _, name, _, _ in await self.things()], ["new"])

    async def test_batch_with_late_statements_is_written_whole_or_not_at_all(self) -> None:
        """A partly written batch would be written twice by the second attempt."""
        with pytest.raises(psycopg.Error):
            await self.write(PUT.row(1, "old", b"", True), FAIL.row(0))

        self.assertEqual(await self.things(), [])


def statements() -> list[BatchStatement]:
    """All statements of the server."""
    folder = homeserver.storage
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(folder.__path__, f"{folder.__name__}.")
    ]
    values = [value for module in modules for value in vars(module).values()]
    return list({value: None for value in values if isinstance(value, BatchStatement)})


class StatementTests(DatabaseTestCase):
    async def test_every_statement_is_valid_in_all_forms(self) -> None:
        """Over arrays, and for one row; nearly all have a form for one row."""
        found = statements()
        made = [
            form((each,), "", is_repeated)
            for each in found
            for form in (_combine, _combine_single)
            for is_repeated in (False, True)
        ]

        async def prepare(db: Connection) -> None:
            for number, statement in enumerate(made):
                if statement is not None:
                    await db.execute(b"PREPARE s%d AS %b" % (number, statement.query))

        await self.db.run(prepare)

        self.assertGreater(len(made) - made.count(None), 3.8 * len(found))
