"""Imported events: old messages that an application service inserts into a room of this server.

An imported event is no event of the graph. It follows no event and none follows it, it is neither
hashed nor signed, and no other server ever gets it. Its id is chosen, with a colon in it; that of
any other event of the same room is a hash, which has none. So the id alone tells that an event is
imported, no server can forge that, and rooms whose ids are all chosen have no imported events.

No specification has this: docs/history-import.md describes it.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import msgspec

from homeserver.protocol.event_format import InvalidEvent, check_event_size, check_field_sizes
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_event_id
from homeserver.protocol.room_versions import EventIdFormat, RoomVersion
from homeserver.protocol.signing.canonical_json import (
    NotCanonical,
    check_canonical,
    check_customary,
)
from homeserver.protocol.signing.hashes import encode_event
from homeserver.protocol.signing.unpadded_base64 import encode_base64_url_safe

IMPORT_KEY: Final = "io.homeserver.import"
"""The member of a stored event that says how it was imported; clients do not get it."""

_SILENT: Final = "silent"


class OldMessage(msgspec.Struct, frozen=True):
    """A message as an application service describes it. `event_id` is the one that it chose."""

    type: str
    sender: str
    content: dict[str, Any]
    origin_server_ts: int  # ms since the epoch
    event_id: str | None = None


def can_have_imports(version: RoomVersion) -> bool:
    """Whether rooms of a version can have imported events."""
    return version.event_id_format is not EventIdFormat.CHOSEN


def is_import_id(version: RoomVersion, event_id: str) -> bool:
    """Whether an id is one that only an imported event can have."""
    return ":" in event_id and can_have_imports(version)


def is_imported(event: Event) -> bool:
    """Whether an event was imported."""
    return is_import_id(event.version, event.event_id)


def is_silent(event: Event) -> bool:
    """Whether an event was imported without notifying anybody."""
    if not is_imported(event):
        return False
    about = event.pdu.get(IMPORT_KEY)
    return isinstance(about, Mapping) and about.get(_SILENT) is True


def message_digest(version: RoomVersion, room_id: str, message: OldMessage) -> str:
    """A digest of all that a message says, in Base64. Raises `InvalidEvent`."""
    described = {
        "content": message.content,
        "origin_server_ts": message.origin_server_ts,
        "room_id": room_id,
        "sender": message.sender,
        "type": message.type,
    }
    return encode_base64_url_safe(sha256(_encode(version, described)).digest())


def import_id(digest: str, number: int, server_name: str) -> str:
    """The id for a message that came without one: the same whenever it comes again.

    `number` is that of equal messages before it in the same request.
    """
    return f"${digest}{f'.{number}' if number else ''}:{server_name}"


def check_import_id(version: RoomVersion, event_id: str) -> None:
    """Raise `InvalidEvent` for an id that no imported event can have."""
    if not (is_import_id(version, event_id) and is_valid_event_id(event_id)):
        raise InvalidEvent("event_id is no id of an imported event, $opaque_id:name")


def build_imported_event(
    version: RoomVersion,
    room_id: str,
    event_id: str,
    message: OldMessage,
    *,
    depth: int,
    silent: bool,
) -> Event:
    """The event that an old message becomes, with a checked id.

    Raises `InvalidEvent`, and `EventTooLarge`.
    """
    pdu: dict[str, Any] = {
        "auth_events": [],
        "content": message.content,
        "depth": min(depth, version.max_depth),
        "hashes": {},
        "origin_server_ts": message.origin_server_ts,
        "prev_events": [],
        "room_id": room_id,
        "sender": message.sender,
        "signatures": {},
        "type": message.type,
        IMPORT_KEY: {_SILENT: silent},
    }
    json = _encode(version, pdu)
    check_field_sizes(pdu)
    check_event_size(json)
    return Event(version, pdu, json, event_id)


def _encode(version: RoomVersion, value: dict[str, Any]) -> bytes:
    check = check_canonical if version.strict_canonical_json else check_customary
    try:
        check(value)
        return encode_event(version, value)
    except NotCanonical as error:
        raise InvalidEvent(str(error)) from error
