"""Rows of sticky events: inserted with the event, and deleted when it sticks no longer."""

from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.storage.database.batch import Row
from homeserver.storage.retention.sticky_events import UPSERT_STICKY_EVENT
from homeserver.streams.positions import seconds_at

MAX_AHEAD_MS = 7_200_000  # by which the time of a position may be ahead of the clock


def may_stick_at(stored: StoredEvent, position: int) -> int | None:
    """When an event stops sticking, in ms; `None` if that was before a position of the log.

    Positions may be ahead of the clock, so it may have been before even if there is a time.
    """
    until = stored.sticky_until
    if until is None or until + MAX_AHEAD_MS < seconds_at(position) * 1000:
        return None
    return until


def may_be_accepted_later(stored: StoredEvent) -> bool:
    """Whether an event was soft-failed, but not because a policy server does not recommend it."""
    status = stored.status
    return (
        status.rejected is None
        and status.soft_failed is not None
        and status.soft_failed.startswith("rule ")
    )


def sticky_rows(stored: StoredEvent, room: int, position: int) -> list[Row]:
    """The row of an event that enters a room, or is soft-failed, at a position of the log.

    A member of the room gets it from there on, be it in the timeline or only because it sticks.
    """
    until = may_stick_at(stored, position)
    if until is None or stored.status.is_outlier:
        return []
    if may_be_accepted_later(stored):
        return [UPSERT_STICKY_EVENT.row(stored.event_nid, room, None, until)]
    if stored.position is None:
        return []
    return [UPSERT_STICKY_EVENT.row(stored.event_nid, room, position, until)]
