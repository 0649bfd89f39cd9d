"""Events in the format of the Client-Server API.

The client format of an event is the same for every reader except for `room_id`, which sync leaves
out, and `unsigned`, which differs by reader. `client_event_parts` therefore encodes an event once,
into bytes around the place of `unsigned`; `client_event` returns a dict.

Older clients look for `redacts` at the top level of a redaction and newer ones in its content; both
find it, in every room version. A redaction with a state key is rendered without `redacts`. A sticky
event is one under both names of the proposal, whichever its sender used.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-event-format
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from homeserver.protocol.authorization.auth_state import StateEvents
from homeserver.protocol.event_kinds import is_plain_redaction, is_redaction
from homeserver.protocol.event_types import (
    AVATAR,
    CANONICAL_ALIAS,
    CREATE,
    ENCRYPTION,
    JOIN_RULES,
    NAME,
    TOPIC,
)
from homeserver.protocol.events import Event
from homeserver.protocol.proposals.sticky_events import STICKY_NAMES, sticky_duration_of

STRIPPED_STATE_TYPES: Final = (
    CREATE,
    NAME,
    AVATAR,
    TOPIC,
    JOIN_RULES,
    CANONICAL_ALIAS,
    ENCRYPTION,
)


def client_event_parts(event: Event, *, room_id: bool = False) -> tuple[bytes, bytes]:
    """The JSON of an event in two parts, between which the JSON of `unsigned` belongs.

    `b"".join((head, unsigned, tail))` is the event; `b"{}"` stands for no unsigned data. The head
    is the same with and without `room_id`.
    """
    fields = _common_fields(event, event.encodable_content)
    head = msgspec.json.encode(fields)[:-1] + b',"unsigned":'
    if not room_id:
        return head, b"}"
    return head, b',"room_id":' + msgspec.json.encode(event.room_id) + b"}"


def client_event(event: Event, *, room_id: bool, unsigned: Mapping[str, Any]) -> dict[str, Any]:
    """An event in the client format. `unsigned` is left out if there is nothing in it."""
    rendered = _common_fields(event, event.content)
    if room_id:
        rendered["room_id"] = event.room_id
    if unsigned:
        rendered["unsigned"] = unsigned
    return rendered


def federation_event(event: Event, *, unsigned: Mapping[str, Any]) -> dict[str, Any]:
    """An event as received over federation, for clients with a filter that requests that format."""
    return {**event.pdu, "unsigned": unsigned} if unsigned else dict(event.pdu)


def stripped_event(event: Event) -> dict[str, Any]:
    """A stripped state event: only the fields that a user needs who is not in the room yet."""
    return {
        "content": event.content,
        "sender": event.sender,
        "state_key": event.state_key,
        "type": event.type,
    }


def stripped_state(state: StateEvents) -> list[dict[str, Any]]:
    """Stripped state for an invite or a knock: what the state says about the room.

    The create event comes first; clients require it.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#stripped-state
    """
    events = [state.get((event_type, "")) for event_type in STRIPPED_STATE_TYPES]
    return [stripped_event(event) for event in events if event is not None]


def _common_fields(event: Event, content: object) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "content": content,
        "event_id": event.event_id,
        "origin_server_ts": event.origin_server_ts,
        "sender": event.sender,
        "type": event.type,
    }
    if event.state_key is not None:
        fields["state_key"] = event.state_key
    if (duration := sticky_duration_of(event)) is not None:
        fields |= {name: {"duration_ms": duration} for name in STICKY_NAMES}
    if is_plain_redaction(event):
        if (redacts := event.redacts) is not None:
            fields["redacts"] = redacts
            fields["content"] = {**event.content, "redacts": redacts}
    elif is_redaction(event):
        # As state it is shown even if it has no effect, and clients would apply it.
        fields["content"] = {key: event.content[key] for key in event.content if key != "redacts"}
    return fields
