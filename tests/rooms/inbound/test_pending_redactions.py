"""Pending redactions: those whose targets may never arrive."""

from types import SimpleNamespace
from typing import Any

from homeserver.rooms.room.pending_redactions import MAX_OF_TARGET, MAX_TARGETS, PendingRedactions


def redaction(number: int) -> Any:
    return SimpleNamespace(event_nid=number)


def test_pending_redactions_of_unknown_events_are_bounded() -> None:
    """A member who redacts invented events all day uses bounded memory."""
    waiting = PendingRedactions(1)
    rows = [
        waiting.add(f"$made-up-{n}", redaction(n), is_backfilled=False)
        for n in range(2 * MAX_TARGETS)
    ]

    assert [len(each) for each in rows] == [1] * MAX_TARGETS + [0] * MAX_TARGETS
    assert len(waiting.targets) == MAX_TARGETS
    waiting.settle("$made-up-0")
    assert waiting.add("$another", redaction(1), is_backfilled=False)


def test_pending_redactions_of_one_event_are_few() -> None:
    """The first ones suffice: one of them redacts the event, or none does."""
    waiting = PendingRedactions(1)
    rows = [
        waiting.add("$event", redaction(n), is_backfilled=n > 0) for n in range(2 * MAX_OF_TARGET)
    ]

    assert sum(map(len, rows)) == MAX_OF_TARGET
    assert waiting.of("$event") == {n: n > 0 for n in range(MAX_OF_TARGET)}
    assert waiting.of("$other") == {}
