"""Events in the format of the first version of the API, for its remaining endpoints.

They put everything into one list of events, so ephemeral events and account data name their room,
and every event names the user it is about.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.visibility import VisibleEvent


def room_event(seen: VisibleEvent, caller: Requester, now_ms: int) -> dict[str, Any]:
    """An event of a room's history."""
    return _with_user(seen.stored, caller, now_ms, seen.membership)


def state_event(stored: StoredEvent, caller: Requester, now_ms: int) -> dict[str, Any]:
    """An event of a room's state."""
    return _with_user(stored, caller, now_ms, None)


def presence_event(event: msgspec.Raw) -> dict[str, Any]:
    """An `m.presence` event."""
    decoded: dict[str, Any] = msgspec.json.decode(event)
    decoded["content"]["user_id"] = decoded["sender"]
    return decoded


def event_in(room_id: str, event: msgspec.Raw) -> dict[str, Any]:
    """An ephemeral event, or account data, of a room."""
    return {**msgspec.json.decode(event), "room_id": room_id}


def _with_user(
    stored: StoredEvent, caller: Requester, now_ms: int, membership: str | None
) -> dict[str, Any]:
    device = (caller.user_id, caller.transaction_scope)
    event = stored.client_dict(now_ms, device=device, membership=membership)
    return {**event, "user_id": stored.event.sender}
