"""Room events in responses, in the format for the caller's client.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-event-format
"""

from collections.abc import Iterable

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.cooperative import build_cooperatively
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.visibility import VisibleEvent


def event_json(seen: VisibleEvent, caller: Requester, now_ms: int) -> msgspec.Raw:
    """One event, with the caller's membership when it was sent."""
    return msgspec.Raw(
        seen.stored.client_json(
            now_ms,
            room_id=True,
            device=_device(caller),
            membership=seen.membership,
            relations=seen.relations,
        )
    )


def events_json(events: Iterable[VisibleEvent], caller: Requester, now_ms: int) -> msgspec.Raw:
    """A list of events, each with the caller's membership when it was sent."""
    device = _device(caller)
    return _list(
        seen.stored.client_json(
            now_ms,
            room_id=True,
            device=device,
            membership=seen.membership,
            relations=seen.relations,
        )
        for seen in events
    )


async def state_json(
    events: Iterable[StoredEvent], caller: Requester, local_server: LocalServer
) -> msgspec.Raw:
    """A list of state events, which may be very long."""
    device, now_ms = _device(caller), local_server.now_ms()
    encoded = (stored.client_json(now_ms, room_id=True, device=device) for stored in events)
    return _list(await build_cooperatively(local_server.clock, encoded))


def _device(caller: Requester) -> tuple[str, str]:
    return caller.user_id, caller.transaction_scope


def _list(events: Iterable[bytes]) -> msgspec.Raw:
    return msgspec.Raw(b"[%s]" % b",".join(events))
