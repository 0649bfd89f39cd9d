"""Redactions that wait for events which may never come."""

from types import SimpleNamespace
from typing import Any

from homeserver.rooms.room.pending_redactions import MAX_OF_TARGET, MAX_TARGETS, PendingRedactions


def redaction(number: int) -> Any:
    return SimpleNamespace(event_nid=number)


def test_those_of_made_up_events_fill_no_memory() -> None:
    """A member who redacts what does not exist, all day long, costs a bounded amount."""
    waiting = PendingRedactions(1)
    rows = [
        waiting.add(f"$made-up-{n}", redaction(n), is_past=False) for n in range(2 * MAX_TARGETS)
    ]

    assert [len(each) for each in rows] == [1] * MAX_TARGETS + [0] * MAX_TARGETS
    assert len(waiting.targets) == MAX_TARGETS
    waiting.settle("$made-up-0")
    assert waiting.add("$another", redaction(1), is_past=False)


def test_those_of_one_event_are_few() -> None:
    """The first ones do; it is redacted by one of them or by none."""
    waiting = PendingRedactions(1)
    rows = [waiting.add("$event", redaction(n), is_past=n > 0) for n in range(2 * MAX_OF_TARGET)]

    assert sum(map(len, rows)) == MAX_OF_TARGET
    assert waiting.of("$event") == {n: n > 0 for n in range(MAX_OF_TARGET)}
    assert waiting.of("$other") == {}
