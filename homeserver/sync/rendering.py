"""Events of a room section as JSON: spliced from encoded ones, or reduced to a filter's fields."""

from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from homeserver.concurrency.cooperative import CHECK_EVERY_ITEMS, build_cooperatively
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
    return b"[%s]" % b",".join(_rendered(request, seen, now_ms))


async def render_state(
    request: SyncRequest, events: Collection[StoredEvent], local_server: LocalServer
) -> bytes:
    """A JSON list of state events as one request wants them; there may be very many."""
    seen = ((stored, None, None) for stored in events)
    rendered: Iterable[bytes] = _rendered(request, seen, local_server.now_ms())
    if len(events) > CHECK_EVERY_ITEMS:
        rendered = await build_cooperatively(local_server.clock, rendered)
    return b"[%s]" % b",".join(rendered)


def _rendered(
    request: SyncRequest,
    seen: Iterable[tuple[StoredEvent, str | None, bytes | None]],
    now_ms: int,
) -> Iterator[bytes]:
    """The events as a request wants them, with the membership and the relations of each."""
    wanted, device = request.filter, request.device
    is_whole = wanted.event_format == "client" and wanted.event_fields is None
    for stored, membership, relations in seen:
        if is_whole:
            yield stored.client_json(
                now_ms, room_id=False, device=device, membership=membership, relations=relations
            )
        else:
            yield _reduced(request, stored, now_ms, membership, relations)


def _reduced(
    request: SyncRequest,
    stored: StoredEvent,
    now_ms: int,
    membership: str | None,
    relations: bytes | None,
) -> bytes:
    wanted = request.filter
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
