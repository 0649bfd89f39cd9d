"""Blocks of the index: they hold what was put into them, and are of bounded size."""

from homeserver.protocol.search.signatures import text_numbers
from homeserver.search.index_entries import (
    MAX_BLOCK,
    IndexEntry,
    blocks_of,
    unpack_entries,
)
from homeserver.storage.search.search_blocks import BlockKey


def entry(number: int, text: str = "x") -> IndexEntry:
    """An entry of an event; later ones were sent earlier."""
    return IndexEntry(number, -number, 7, number % 3, number % 2 == 0, text_numbers(text))


def test_entries_come_back() -> None:
    """What a search filters by is what was indexed."""
    texts = ["", "needle", " ".join(f"hay{number}" for number in range(5_000))]
    entries = [entry(number, text) for number, text in enumerate(texts, 1)]

    (block,) = blocks_of(9, entries)

    room, first, last, first_at, last_at = (
        int.from_bytes(value or b"", signed=True) for value in block.row[1][:5]
    )
    assert (room, first, last, first_at, last_at) == (9, 1, 3, -3, -1)
    assert block.key == BlockKey(9, 3)
    assert list(unpack_entries(bytes(block.row[1][6] or b""))) == entries


def test_blocks_are_bounded() -> None:
    """A search reads little for each event that it finds, and no row is too large for a page."""
    short = list(blocks_of(1, [entry(number) for number in range(2 * MAX_BLOCK + 1)]))
    words = [" ".join(f"{number}hay{word}" for word in range(100)) for number in range(50)]
    long = list(blocks_of(1, [entry(number, text) for number, text in enumerate(words)]))

    assert [block.key.last_event for block in short] == [99, 199, 200]
    assert len(long) > 3
    assert all(len(block.row[1][5] or b"") < 2_600 for block in long)
    assert not list(blocks_of(1, []))
