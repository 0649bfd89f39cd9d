"""The events that the search index has to know, for its durable readers.

They come from the log as they are published, or from the database when a reader is behind. Events
of a timeline, backfilled and imported ones are the same to the index. A redaction is an item of its
own: what it redacts is taken out of the index. So is what the database has without a text.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import build_cooperatively
from homeserver.protocol.event_types import REDACTION
from homeserver.protocol.search.searchable import (
    SEARCHABLE_TYPES,
    SearchableText,
    SearchKey,
    searchable_text,
)
from homeserver.protocol.search.signatures import text_numbers
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import (
    EventAppended,
    EventsPurged,
    EventsStored,
    HistoryImported,
    RedactedEvent,
)
from homeserver.search.index_entries import IndexEntry
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.event_json import unpack_json
from homeserver.storage.rooms.names import Names
from homeserver.storage.search import stored_texts as storage
from homeserver.streams.durable_reader import ItemPage
from homeserver.streams.positions import EPOCH_SECONDS, MAX_POSITION, SLOT_BITS

PAGE_EVENTS = 500  # of all types
_EPOCH_MS = EPOCH_SECONDS * 1000
_SHIFT_MS = 1000 << SLOT_BITS  # units of a position in a millisecond

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class IndexedEvent(NamedTuple):
    """An event that can be found by its text. `sent_at` sorts it among those of all rooms.

    `numbers` stand for the words of its text, `size` is that of its JSON, in bytes.
    """

    position: int
    event_nid: int
    room_nid: int
    sender: str
    sent_at: int
    key: SearchKey
    numbers: bytes
    has_url: bool
    size: int

    def entry(self, sender: int) -> IndexEntry:
        """What the index has of it; `sender` is the nid of its sender."""
        return IndexEntry(
            self.event_nid, self.sent_at, sender, self.key, self.has_url, self.numbers
        )


class RemovedEvent(msgspec.Struct, frozen=True):
    """An event that was redacted or purged, and cannot be found any more."""

    position: int
    event_nid: int


IndexItem = IndexedEvent | RemovedEvent


class IndexSource:
    """The items of the reader that follows the log."""

    def __init__(self, db: Database, names: Names, clock: Clock) -> None:
        self._db = db
        self._names = names
        self._clock = clock

    def select(self, entries: Sequence[Any]) -> Iterator[IndexItem]:
        """The items of log entries."""
        for entry in entries:
            if isinstance(entry, EventAppended):
                yield from _of_stored(entry.position, entry.room_nid, entry.stored)
            elif isinstance(entry, (EventsStored, HistoryImported)):
                for stored in entry.events:
                    yield from _of_stored(entry.position, entry.room, stored)
            elif isinstance(entry, EventsPurged):
                for event_nid in entry.event_nids:
                    yield RemovedEvent(entry.position, event_nid)
            redacts = getattr(entry, "redacts", None)
            if isinstance(redacts, RedactedEvent):
                yield RemovedEvent(entry.position, redacts.event_nid)

    async def load(self, after: int, upto: int) -> ItemPage[IndexItem]:
        """A page of the items from the database."""
        end = await self._db.run(storage.texts_end, after, upto, PAGE_EVENTS)
        names = await self._type_names()
        rows = await self._db.run(storage.texts_between, after, end, list(names))
        targets: dict[tuple[int, str], int] = {}
        texts: list[storage.StoredText] = []
        for row in rows:
            if names[row.type] == REDACTION:
                for target in _targets(unpack_json(row.json)):
                    targets[row.room, target] = row.logged_at
            else:
                texts.append(row)
        found = (_of_row(row, names) for row in texts)
        items = await build_cooperatively(self._clock, found, every=1)
        for room, event_id, event in await self._db.run(storage.redacted_among, list(targets)):
            items.append(RemovedEvent(targets[room, event_id], event))
        items.sort(key=lambda item: item.position)
        return ItemPage(items, end)

    async def load_room(self, room_nid: int, after: int) -> tuple[list[IndexItem], int | None]:
        """A page of the items of a room, by the places of its events in the timeline.

        With it the place after which the next page begins, `None` if there is none.
        """
        names = await self._type_names()
        rows = await self._db.run(storage.texts_of_room, room_nid, after, list(names), PAGE_EVENTS)
        texts = (_of_row(row, names) for row in rows if names[row.type] != REDACTION)
        items = await build_cooperatively(self._clock, texts, every=1)
        return items, rows[-1].position if len(rows) == PAGE_EVENTS else None

    async def texts(self, event_nids: Sequence[int]) -> dict[int, SearchableText]:
        """The texts of those of the events that can be found, by their nids."""
        names = await self._type_names()
        rows = await self._db.run(storage.texts_of, event_nids, list(names))
        found = (_text_of_row(row, names) for row in rows)
        texts = await build_cooperatively(self._clock, found, every=1)
        return {row.event: text for row, text in zip(rows, texts, strict=True) if text is not None}

    async def _type_names(self) -> dict[int, str]:
        nids = await self._names.find_nids([*SEARCHABLE_TYPES, REDACTION, ""])
        return {nid: name for name, nid in nids.items()}


def _of_stored(position: int, room_nid: int, stored: StoredEvent) -> Iterator[IndexedEvent]:
    """The item of an event of a log entry, if it can be found."""
    event = stored.event
    if stored.position is None or stored.redaction is not None:
        return
    text = searchable_text(event.type, event.state_key, event.content)
    if text is not None:
        yield IndexedEvent(
            position,
            stored.event_nid,
            room_nid,
            event.sender,
            _sent_at(position, stored.position, event.origin_server_ts),
            text.key,
            text_numbers(text.text),
            "url" in event.content,
            len(event.json),
        )


def _of_row(row: storage.StoredText, names: dict[int, str]) -> IndexItem:
    json = unpack_json(row.json)
    pdu = _decode(json)
    content = pdu["content"]
    text = searchable_text(names[row.type], pdu.get("state_key"), content)
    if row.is_redacted or text is None:
        return RemovedEvent(row.logged_at, row.event)
    return IndexedEvent(
        row.logged_at,
        row.event,
        row.room,
        pdu["sender"],
        _sent_at(row.logged_at, row.position, pdu["origin_server_ts"]),
        text.key,
        text_numbers(text.text),
        "url" in content,
        len(json),
    )


def _text_of_row(row: storage.StoredText, names: dict[int, str]) -> SearchableText | None:
    pdu = _decode(unpack_json(row.json))
    return searchable_text(names[row.type], pdu.get("state_key"), pdu["content"])


def _targets(json: bytes) -> Iterator[str]:
    """The event that a redaction names, at either of the two places."""
    pdu = _decode(json)
    for holder in (pdu, pdu["content"]):
        target = holder.get("redacts")
        if isinstance(target, str):
            yield target


def _sent_at(logged_at: int, position: int, origin_server_ts: int) -> int:
    """When an event was sent, on the scale of positions.

    In the timeline that is when it came. A backfilled or imported event came later; what its sender
    says of the time counts, but not if it would be later still.
    """
    if position > 0:
        return position
    sent_at = (origin_server_ts - _EPOCH_MS) * _SHIFT_MS
    return max(min(sent_at, logged_at), -MAX_POSITION)
