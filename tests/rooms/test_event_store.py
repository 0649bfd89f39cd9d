"""Events in memory: one object for each in a process, which what the log publishes changes."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.stored_event import EventStatus, StoredEvent
from homeserver.rooms.room.changes import EventAppended, RoomUnPartialStated, with_own_events
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.rooms.events import EventRow
from tests.rooms.inbound.replica import ALICE, build

ROOM = "!room:one.example"
VERSION = ROOM_VERSIONS["11"]


def message(timestamp: int = 1) -> Event:
    content = {"msgtype": "m.text", "body": "hello"}
    return build("11", ROOM, "m.room.message", ALICE, content, None, [], [], 1, timestamp)


REDACTION = build(
    "11", ROOM, "m.room.redaction", ALICE, {"redacts": "$any"}, None, [], [], 2, timestamp=2
)


def appended(event: Event, event_nid: int = 7, **fields: Any) -> EventAppended:
    """The log entry of another process for an event."""
    stored = StoredEvent(event, event_nid, event_nid, b"before", b"after", stored_at=event_nid)
    return EventAppended(event_nid, 1, b"after", stored=stored, **fields)


def row(event: Event, event_nid: int = 7, *, is_outlier: bool = False) -> EventRow:
    """An event as it was read before the last commit."""
    position = None if is_outlier else event_nid
    state = None if is_outlier else b"before"
    rest = [None] * 10
    return EventRow(
        event_nid, 1, position, event_nid, 1, event.event_id, event.json, state, state, *rest
    )


class HeldDatabase:
    """A database whose rows arrive when the test says so."""

    def __init__(self) -> None:
        self.reads: list[Deferred[list[EventRow]]] = []

    def run(self, _: object, *arguments: object) -> Deferred[list[EventRow]]:
        self.reads.append(Deferred())
        return self.reads[-1]


class Memory:
    """Stored events, and one read of an event that has not ended."""

    def __init__(self) -> None:
        self.db = HeldDatabase()
        self.events = EventStore(self.db, 10)  # type: ignore[arg-type]

    def load(self, event_nid: int = 7) -> list[dict[int, StoredEvent]]:
        """Begin to read an event; gives a list that will have the result."""
        found: list[dict[int, StoredEvent]] = []
        loading = Deferred.fromCoroutine(self.events.load(VERSION, [event_nid]))
        loading.addCallback(found.append)
        return found

    def publish(self, entry: Any) -> Any:
        return with_own_events(entry, self.events)


def test_event_of_an_entry_is_that_in_memory() -> None:
    """A reader who has the event as an outlier sees that it was placed, and when it is redacted."""
    memory, event = Memory(), message()
    known = StoredEvent(
        event, 7, None, EMPTY, EMPTY, stored_at=7, status=EventStatus(is_outlier=True)
    )
    memory.events.add(known)

    entry = memory.publish(appended(event))

    assert entry.stored is known
    assert (known.position, known.state_before, known.state_after) == (7, b"before", b"after")
    assert known.status == EventStatus()


def test_event_of_an_entry_becomes_that_in_memory() -> None:
    """A reader who looks it up later gets the object that the room shows."""
    memory, entry = Memory(), appended(message())

    shown = memory.publish(entry)

    assert shown is entry
    assert memory.events.cached(7) is entry.stored


def test_current_event_of_an_entry_is_that_in_memory() -> None:
    """It may have been changed since, so it stays as it is."""
    memory, event = Memory(), message()
    known = StoredEvent(event, 7, 7, EMPTY, EMPTY, stored_at=7, redaction=REDACTION)
    memory.events.add(known)
    other = StoredEvent(event, 7, 7, b"another", b"another", stored_at=7)

    entry = memory.publish(appended(message(3), 9, changes={("type", "key"): other}))

    assert entry.changes == {("type", "key"): known}
    assert known.redaction == REDACTION
    assert known.state_before == EMPTY


def test_redaction_is_not_undone() -> None:
    """The event was read when its redaction was stored, and not published yet."""
    memory, event = Memory(), message()
    known = StoredEvent(event, 7, 7, EMPTY, EMPTY, stored_at=7, redaction=REDACTION)
    memory.events.add(known)

    memory.publish(appended(event))

    assert known.redaction == REDACTION


def test_redacted_event_is_found_by_its_number() -> None:
    """Every holder of the object sees the redaction."""
    memory, event = Memory(), message()
    shown = memory.publish(appended(event)).stored
    redaction = appended(REDACTION, 8)

    memory.events.redact(7, redaction.stored.event)

    assert shown.redaction == REDACTION
    assert b"hello" not in shown.client_json(1, room_id=True)


def test_redaction_is_applied_to_an_event_that_is_being_read() -> None:
    """Its row was read before the redaction was stored."""
    memory, event = Memory(), message()
    found = memory.load()

    memory.events.redact(7, REDACTION)
    memory.db.reads[0].callback([row(event)])

    assert found[0][7].redaction == REDACTION


def test_event_that_is_being_read_becomes_as_the_log_says() -> None:
    """It was placed, and removed from the timeline again, after its row had been read."""
    memory, event = Memory(), message()
    found = memory.load()

    memory.publish(appended(event))
    memory.publish(RoomUnPartialStated(8, 1, b"root", removed=frozenset({7})))
    memory.db.reads[0].callback([row(event, is_outlier=True)])

    assert found[0][7].status == EventStatus()
    assert found[0][7].state_after == b"after"
    assert found[0][7].position is None


def test_what_is_published_before_a_read_does_not_count() -> None:
    """The row of a later read has it, or something newer."""
    memory, event = Memory(), message()
    memory.events.redact(7, REDACTION)

    found = memory.load()
    memory.db.reads[0].callback([row(event)])

    assert found[0][7].redaction is None


class BusyClock(Clock):
    """A clock by which everything takes long; `pauses` is how often somebody waited."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = 0

    def seconds(self) -> float:
        self.rightNow += 0.01
        return self.rightNow

    def callLater(self, *arguments: Any, **more: Any) -> Any:
        self.pauses += 1
        return super().callLater(*arguments, **more)


def test_large_events_are_read_in_time_slices() -> None:
    """A job that reads hundreds of events of 64 KiB does not hold up the requests of users."""
    memory, clock = Memory(), BusyClock()
    found: list[Any] = []
    loading = Deferred.fromCoroutine(memory.events.load_bare(VERSION, [7, 8, 9], clock))
    loading.addCallback(found.extend)
    event = message()
    rows: Any = [(number, event.event_id, event.json, False) for number in (7, 8, 9)]

    memory.db.reads[0].callback(rows)
    clock.advance(0)

    assert clock.pauses == 3
    assert [number for number, _, _ in found] == [7, 8, 9]
