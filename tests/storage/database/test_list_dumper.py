"""Parameters that are lists: they mean the same as if psycopg itself dumped them."""

from typing import Any

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.adapt import AdaptersMap, PyFormat, Transformer
from psycopg.pq import Format
from psycopg.types.array import ListDumper

from homeserver.storage.database.list_dumper import LONG, UniformListDumper
from tests.support.postgres import DatabaseTestCase

TEXT_LIST = 1009  # the OID of text[]
integers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
elements = st.one_of(integers, texts, st.booleans(), st.none(), st.floats(allow_nan=False))


def transformer(dumper: type[ListDumper]) -> Transformer:
    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_dumper(list, dumper)
    connection: Any = type("Context", (), {"adapters": adapters, "connection": None})()
    return Transformer(connection)


def dumped(values: list[Any], dumper: type[ListDumper]) -> tuple[Any, Any]:
    """The OID and the text of a list."""
    made = transformer(dumper)
    (text,) = made.dump_sequence([values], [PyFormat.AUTO])
    assert made.types is not None
    assert made.formats == [Format.TEXT]
    return made.types[0], text


@given(st.lists(integers, min_size=LONG) | st.lists(integers))
@example([32_767] * LONG)
@example([-32_769, *range(LONG)])
@example([2**31, *range(LONG)])
def test_lists_of_integers_are_dumped_as_by_psycopg(values: list[int]) -> None:
    """The type too: PostgreSQL chooses operators and indexes by it."""
    assert dumped(values, UniformListDumper) == dumped(values, ListDumper)


@given(st.lists(texts, min_size=LONG) | st.lists(texts))
@example(["", "NULL", "a,b", "{}", " ", "a"])
@example(['"', "\\", "a", "b", "c", "d"])
def test_lists_of_texts_mean_the_same(values: list[str]) -> None:
    """Whatever is in them: nobody gets out of the quotes."""
    oid, text = dumped(values, UniformListDumper)

    assert oid == dumped(values, ListDumper)[0]
    loader = transformer(UniformListDumper).get_loader(TEXT_LIST, Format.TEXT)
    assert loader.load(text) == values


@given(st.lists(elements, min_size=LONG, max_size=LONG) | st.lists(elements, max_size=3))
def test_other_lists_are_left_to_psycopg(values: list[Any]) -> None:
    """Those with booleans, which are integers to Python, and with several types."""
    if all(type(value) is str for value in values):
        return
    try:
        expected: Any = dumped(values, ListDumper)
    except psycopg.DataError:
        with pytest.raises(psycopg.DataError):
            dumped(values, UniformListDumper)
    else:
        assert dumped(values, UniformListDumper) == expected


@pytest.mark.parametrize("count", [1, LONG])
@pytest.mark.parametrize("value", ["a\0b", "\ud800"])
def test_what_cannot_be_stored_is_an_error(value: str, count: int) -> None:
    """As it is for a single text."""
    with pytest.raises((psycopg.DataError, UnicodeEncodeError)):
        dumped([value] * count, UniformListDumper)


class DatabaseTests(DatabaseTestCase):
    async def test_connections_dump_lists_so(self) -> None:
        """Elements of all kinds come back."""
        async with self.db.connection() as connection:
            values = ["", "NULL", 'quote " and \\', "{,}", "\u2003", "é😀"]
            cursor = await connection.execute("SELECT %s::text[], %s", (values, [1, 2**40]))
            assert await cursor.fetchone() == (values, [1, 2**40])
            dumper = connection.adapters.get_dumper(list, PyFormat.AUTO)
            assert dumper is UniformListDumper
