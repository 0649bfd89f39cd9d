"""The wire form of stored events, in log entries that other processes read.

An event is its JSON as it was signed, with its id and what this server knows of it. It is
decoded without any check: the sender is a process of the same server.
"""

import msgspec

from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.events.event_draft import ClientTransaction
from homeserver.rooms.events.stored_event import ACCEPTED, EventStatus, StoredEvent

_Json = tuple[str, bytes]  # event id, JSON


class StoredEventWire(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A `StoredEvent`: `event`, `replaced` and `redaction` are pairs of event id and JSON."""

    event: _Json
    event_nid: int
    position: int | None
    stored_at: int
    state_before: bytes
    state_after: bytes
    topological_depth: int
    replaces: int | None
    replaced: _Json | None
    redaction: _Json | None
    transaction: tuple[str, str, str, str] | None
    is_outlier: bool
    rejected: str | None
    soft_failed: str | None


def stored_event_to_wire(stored: StoredEvent) -> StoredEventWire:
    """The wire form of an event, as the event is now."""
    event, status = stored.event, stored.status
    return StoredEventWire(
        (event.event_id, event.json),
        stored.event_nid,
        stored.position,
        stored.stored_at,
        stored.state_before,
        stored.state_after,
        stored.topological_depth,
        stored.replaces,
        _to_json(stored.replaced),
        _to_json(stored.redaction),
        stored.transaction,
        status.is_outlier,
        status.rejected,
        status.soft_failed,
    )


def stored_event_from_wire(version: RoomVersion, wire: StoredEventWire) -> StoredEvent:
    """The event of a room of this version."""
    event_id, json = wire.event
    status = EventStatus(wire.is_outlier, wire.rejected, wire.soft_failed)
    return StoredEvent(
        Event.from_json(version, json, event_id),
        wire.event_nid,
        wire.position,
        wire.state_before,
        wire.state_after,
        stored_at=wire.stored_at,
        replaces=wire.replaces,
        replaced=_from_json(version, wire.replaced),
        redaction=_from_json(version, wire.redaction),
        transaction=None if wire.transaction is None else ClientTransaction(*wire.transaction),
        status=ACCEPTED if status == ACCEPTED else status,
        topological_depth=wire.topological_depth,
    )


def _to_json(event: Event | None) -> _Json | None:
    return None if event is None else (event.event_id, event.json)


def _from_json(version: RoomVersion, wire: _Json | None) -> Event | None:
    return None if wire is None else Event.from_json(version, wire[1], wire[0])
