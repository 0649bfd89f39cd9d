"""The codec of log entries: another process gets the entry that was appended, as its own value."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.rooms.events.stored_event import ACCEPTED, EventStatus, StoredEvent
from homeserver.rooms.room.changes import EventAppended, EventsStored
from homeserver.streams.entry_codec import EntryCodec, UnknownEntry, plain_kind
from homeserver.wiring.entry_kinds import entry_codec
from tests.streams.entry_strategies import (
    as_values,
    example_events,
    plain_entries,
    room_entries,
)

CODEC = entry_codec()


class Counted(msgspec.Struct, frozen=True):
    """A log entry of these tests."""

    position: int
    values: tuple[int, ...] = ()


@settings(deadline=None)
@given(plain_entries)
def test_plain_entry_is_decoded_as_it_was(entry: Any) -> None:
    """A receipt, a typing notice or presence reaches users whose device is at another process."""
    decoded = CODEC.decode(CODEC.encode(entry))

    assert decoded == entry
    assert type(decoded) is type(entry)


@pytest.mark.parametrize("version", ROOM_VERSIONS)
@settings(deadline=None, max_examples=40)
@given(st.data())
def test_entry_of_a_room_is_decoded_as_it_was(version: str, data: Any) -> None:
    """Event ids and room ids, which each format makes in its own way, included."""
    entry = data.draw(room_entries(version))

    decoded = CODEC.decode(CODEC.encode(entry))

    assert as_values(decoded) == as_values(entry)
    assert type(decoded) is type(entry)


@pytest.mark.parametrize("version", ROOM_VERSIONS)
def test_decoded_entry_shares_no_event(version: str) -> None:
    """What one process does to its object of an event, another does not see."""
    _, join, _, redaction = example_events(version)
    stored = StoredEvent(join, 7, 7, b"before", b"after", stored_at=7)
    key = (join.type, join.state_key or "")
    entry = EventAppended(7, 1, b"after", {key: stored}, stored=stored)

    decoded = CODEC.transcode(entry)
    stored.redact(redaction)

    assert decoded.stored is decoded.changes[key], "it is one object for the reader, too"
    assert decoded.stored is not stored
    assert decoded.stored.redaction is None
    assert decoded.stored.event.version is ROOM_VERSIONS[version]


def test_entry_is_encoded_as_its_event_is_then() -> None:
    """An event that was redacted before its entry was published is never shown in full."""
    _, _, said, redaction = example_events("11")
    stored = StoredEvent(said, 7, 7, b"root", b"root", stored_at=7)
    entry = EventsStored(7, 1, [stored])
    stored.redact(redaction)

    decoded = CODEC.transcode(entry)

    assert decoded.events[0].redaction == redaction


@pytest.mark.parametrize("status", [ACCEPTED, EventStatus(is_outlier=True)])
def test_status_of_an_event_is_kept(status: EventStatus) -> None:
    """An outlier has no place in the graph for other processes either."""
    stored = StoredEvent(example_events("11")[2], 7, None, b"", b"", stored_at=7, status=status)

    assert CODEC.transcode(EventsStored(7, 1, [stored])).events[0].status == status


def test_class_without_a_kind_is_refused() -> None:
    """An entry that other processes would never see is a defect, and is found by the first test."""
    with pytest.raises(UnknownEntry):
        CODEC.encode(Counted(1))


@pytest.mark.parametrize("kind", [plain_kind("counted", 2, Counted), plain_kind("c", 1, Counted)])
def test_other_version_or_tag_is_refused(kind: Any) -> None:
    """A process of another release is recognised, and not misunderstood."""
    data = EntryCodec([kind]).encode(Counted(1, (2, 3)))

    with pytest.raises(UnknownEntry):
        EntryCodec([plain_kind("counted", 1, Counted)]).decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"version": 1}),
        msgspec.msgpack.encode((1, "typing", (1, "room", "@a:example.org", True))),
        msgspec.msgpack.encode((1, "typing", (1, 2))),
        msgspec.msgpack.encode((1, "event", ())),
    ],
)
def test_malformed_bytes_are_refused(data: bytes) -> None:
    """As for an unknown kind, the reader reads what it missed from the database."""
    with pytest.raises(UnknownEntry):
        CODEC.decode(data)


def test_kind_and_class_are_registered_once() -> None:
    """Two kinds of one tag could not be told apart."""
    with pytest.raises(AssertionError):
        EntryCodec([plain_kind("counted", 1, Counted), plain_kind("other", 1, Counted)])
