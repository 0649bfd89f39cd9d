"""Events of a room section as JSON: spliced from encoded ones, or reduced to a filter's fields."""

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
    """A JSON list of events as every member of the room sees them."""
    return b"[%s]" % b",".join(
        event.stored.client_json(now_ms, room_id=False, membership=event.membership)
        for event in seen
    )


def render_for(request: SyncRequest, seen: Sequence[VisibleEvent], now_ms: int) -> bytes:
    """A JSON list of events as one request wants them."""
    return b"[%s]" % b",".join(
        _render(request, event.stored, now_ms, event.membership, event.relations) for event in seen
    )


async def render_state(
    request: SyncRequest, events: Iterable[StoredEvent], local_server: LocalServer
) -> bytes:
    """A JSON list of state events as one request wants them; there may be very many."""
    now_ms = local_server.now_ms()
    rendered = (_render(request, stored, now_ms, None) for stored in events)
    return b"[%s]" % b",".join(await build_cooperatively(local_server.clock, rendered))


def _render(
    request: SyncRequest,
    stored: StoredEvent,
    now_ms: int,
    membership: str | None,
    relations: bytes | None = None,
) -> bytes:
    wanted = request.filter
    if wanted.event_format == "client" and wanted.event_fields is None:
        return stored.client_json(
            now_ms,
            room_id=False,
            device=request.device,
            membership=membership,
            relations=relations,
        )
    if wanted.event_format == "federation":
        unsigned = stored.unsigned(
            now_ms, device=request.device, membership=membership, relations=relations
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
            device=request.device,
            membership=membership,
            relations=relations,
            room_id=False,
        )
    return _encode(only_fields(event, wanted.event_fields) if wanted.event_fields else event)
