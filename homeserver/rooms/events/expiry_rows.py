"""Rows of events that expire: inserted with the event, and deleted when it has expired."""

from homeserver.protocol.event_kinds import is_state
from homeserver.protocol.event_types import RETENTION
from homeserver.protocol.retention.message_expiry import expiry_of
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.storage.database.batch import Row
from homeserver.storage.retention.expiring_events import INSERT_EXPIRING_EVENT
from homeserver.storage.retention.retention_rooms import INSERT_RETENTION_ROOM


def expiry_rows(stored: StoredEvent, room: int) -> list[Row]:
    """The row of a new event that expires at a time of its sender's choice, or of one that says how
    long the room's messages are kept.
    """
    event = stored.event
    if event.state_key is not None:
        return [INSERT_RETENTION_ROOM.row(room)] if is_state(event, RETENTION) else []
    due = expiry_of(event)
    return [] if due is None else [INSERT_EXPIRING_EVENT.row(stored.event_nid, room, due)]
