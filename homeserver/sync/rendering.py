"""Events of a room section as JSON: spliced from encoded ones, or cut to a filter's fields."""

from collections.abc import Iterable, Sequence

import msgspec

from homeserver.concurrency.cooperative import build_cooperatively
from homeserver.protocol.client_events import federation_event
from homeserver.protocol.filters import only_fields
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.visibility import VisibleEvent
from homeserver.sync.sync_request import SyncRequest

_encode = msgspec.json.Encoder().encode


def render_events(seen: Iterable[VisibleEvent], now_ms: int) -> bytes:
    """A JSON list of events as everybody sees them who is in the room."""
    return b"[%s]" % b",".join(
        event.stored.client_json(now_ms, room_id=False, membership=event.membership)
        for event in seen
    )


def render_for(reader: SyncRequest, seen: Sequence[VisibleEvent], now_ms: int) -> bytes:
    """A JSON list of events as one reader wants them."""
    return b"[%s]" % b",".join(
        _render(reader, event.stored, now_ms, event.membership, event.relations) for event in seen
    )


async def render_state(
    reader: SyncRequest, events: Iterable[StoredEvent], origin: LocalServer
) -> bytes:
    """A JSON list of state events as one reader wants them; there may be very many."""
    now_ms = origin.now_ms()
    rendered = (_render(reader, stored, now_ms, None) for stored in events)
    return b"[%s]" % b",".join(await build_cooperatively(origin.clock, rendered))


def _render(
    reader: SyncRequest,
    stored: StoredEvent,
    now_ms: int,
    membership: str | None,
    relations: bytes | None = None,
) -> bytes:
    wanted = reader.filter
    if wanted.event_format == "client" and wanted.event_fields is None:
        return stored.client_json(
            now_ms,
            room_id=False,
            device=reader.device,
            membership=membership,
            relations=relations,
        )
    if wanted.event_format == "federation":
        unsigned = stored.unsigned(
            now_ms, device=reader.device, membership=membership, relations=relations
        )
        # The ids are not part of the PDU in every room version, but clients need them.
        event = {
            **federation_event(stored.shown, unsigned=unsigned),
            "event_id": stored.event.event_id,
            "room_id": stored.event.room_id,
        }
    else:
        event = stored.client_dict(
            now_ms,
            device=reader.device,
            membership=membership,
            relations=relations,
            room_id=False,
        )
    return _encode(only_fields(event, wanted.event_fields) if wanted.event_fields else event)
