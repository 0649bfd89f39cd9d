"""Entries of the search index, and the blocks in which they are stored.

An entry has what a search asks of an event before it is read, without any of its words: numbers
that stand for them (`protocol/search/signatures.py`). Entries of one room that follow each other
form a block, up to `MAX_BLOCK` of them, or fewer with many words.

In a block each entry is a head and its numbers, two bytes each, in the order of their events.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from homeserver.protocol.search.signatures import signature, unpack_numbers
from homeserver.storage.database.batch import Row
from homeserver.storage.search.search_blocks import INSERT_BLOCK, BlockKey, Place

MAX_BLOCK = 100  # entries
MAX_BLOCK_NUMBERS = 1_200  # different ones, or some more; with so many the signature has 1.8 kB
HEAD = struct.Struct("<qqiBH")  # event, sent_at, sender, key and flags, number of numbers
HAS_URL = 0x80


class IndexEntry(NamedTuple):
    """An event in the index. `sent_at` sorts it among those of all rooms; `numbers` are packed."""

    event: int
    sent_at: int
    sender: int
    key: int
    has_url: bool
    numbers: bytes

    @property
    def place(self) -> Place:
        """Its place in the order of time."""
        return self.sent_at, self.event


class IndexBlock(msgspec.Struct, frozen=True):
    """Entries of a room as they are stored."""

    key: BlockKey
    row: Row


def blocks_of(room: int, entries: Sequence[IndexEntry]) -> Iterator[IndexBlock]:
    """The blocks of some entries of a room, which are in the order of their events."""
    numbers: set[int] = set()
    start = 0
    for end, entry in enumerate(entries, 1):
        numbers.update(unpack_numbers(entry.numbers))
        if len(numbers) >= MAX_BLOCK_NUMBERS or end - start == MAX_BLOCK or end == len(entries):
            yield _block(room, entries[start:end], numbers)
            numbers, start = set(), end


def unpack_entries(packed: bytes) -> Iterator[IndexEntry]:
    """The entries of a block."""
    place = 0
    while place < len(packed):
        event, sent_at, sender, flags, count = HEAD.unpack_from(packed, place)
        start = place + HEAD.size
        place = start + 2 * count
        key, has_url = flags & ~HAS_URL, bool(flags & HAS_URL)
        yield IndexEntry(event, sent_at, sender, key, has_url, packed[start:place])


def _block(room: int, entries: Sequence[IndexEntry], numbers: set[int]) -> IndexBlock:
    times = [entry.sent_at for entry in entries]
    first, last = entries[0].event, entries[-1].event
    row = INSERT_BLOCK.row(
        room, first, last, min(times), max(times), signature(numbers), _pack(entries)
    )
    return IndexBlock(BlockKey(room, last), row)


def _pack(entries: Sequence[IndexEntry]) -> bytes:
    parts: list[bytes] = []
    for entry in entries:
        flags = entry.key | (HAS_URL if entry.has_url else 0)
        head = HEAD.pack(entry.event, entry.sent_at, entry.sender, flags, len(entry.numbers) // 2)
        parts += (head, entry.numbers)
    return b"".join(parts)
