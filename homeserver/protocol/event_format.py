"""The event format: the required fields of a PDU, their types and sizes.

This is the first check on receipt of a PDU. It ensures that the rest of the code finds fields of
the expected types. An event that fails is dropped.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Mapping
from typing import Any, Protocol

from homeserver.protocol.event_types import CREATE, REDACTION
from homeserver.protocol.identifiers import (
    MAX_ID_BYTES,
    fits_id_limit,
    is_valid_event_id,
    is_valid_room_id,
    is_valid_user_id,
)
from homeserver.protocol.room_versions import EventFormat, RoomVersion

MAX_EVENT_BYTES = 65_536
MAX_PREV_EVENTS = 20
MAX_AUTH_EVENTS = 10

_LIMITED_FIELDS = ("type", "state_key", "sender", "room_id", "event_id")
_MAX_TIMESTAMP = 2**63 - 1


class _Check(Protocol):
    """A check of `identifiers.py`."""

    def __call__(self, text: str, /, *, in_codepoints: bool) -> bool: ...


class InvalidEvent(ValueError):
    """The event does not comply with the event format of its room version."""


class EventTooLarge(InvalidEvent):
    """The event, or one of its fields, exceeds a size limit."""


def check_format(version: RoomVersion, pdu: Mapping[str, Any]) -> None:
    """Check types and sizes of all fields. Raises `InvalidEvent`.

    Spec: https://spec.matrix.org/v1.19/rooms/v12/#event-format, and of the other versions.
    """
    _require(isinstance(pdu.get("type"), str), "type")
    _require(isinstance(pdu.get("content"), dict), "content")
    _require(isinstance(pdu.get("state_key", ""), str), "state_key")
    _require(_is_integer(pdu.get("depth"), 0, version.max_depth), "depth")
    _require(
        _is_integer(pdu.get("origin_server_ts"), -_MAX_TIMESTAMP - 1, _MAX_TIMESTAMP),
        "origin_server_ts",
    )
    by_codepoints = version.limits_ids_by_codepoints
    _require(_is_id(is_valid_user_id, pdu.get("sender"), by_codepoints), "sender")
    _check_room_id(version, pdu)
    _check_references(version, pdu, "prev_events", MAX_PREV_EVENTS)
    _check_references(version, pdu, "auth_events", MAX_AUTH_EVENTS)
    _check_hashes(pdu.get("hashes"))
    _check_signatures(pdu.get("signatures"))
    if version.event_format is EventFormat.V1:
        event_id = pdu.get("event_id")
        _require(_is_id(is_valid_event_id, event_id, by_codepoints), "event_id")
        _require(":" in pdu["event_id"], "event_id")
    if pdu["type"] == REDACTION and not version.redacts_in_content:
        _require(isinstance(pdu.get("redacts", ""), str), "redacts")
    check_field_sizes(pdu, in_codepoints=by_codepoints)


def check_field_sizes(pdu: Mapping[str, Any], *, in_codepoints: bool = False) -> None:
    """Check the fields that are limited to 255 bytes, or codepoints. Raises `EventTooLarge`.

    Local events are measured in bytes, which all servers accept.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#size-limits
    """
    unit = "codepoints" if in_codepoints else "bytes"
    for field in _LIMITED_FIELDS:
        value = pdu.get(field)
        if isinstance(value, str) and not fits_id_limit(value, in_codepoints=in_codepoints):
            raise EventTooLarge(f"{field} is larger than {MAX_ID_BYTES} {unit}")


def check_event_size(json: bytes) -> None:
    """Check the size of a whole event as canonical JSON. Raises `EventTooLarge`."""
    if len(json) > MAX_EVENT_BYTES:
        raise EventTooLarge(f"the event is larger than {MAX_EVENT_BYTES} bytes")


def _require(fact: bool, field: str) -> None:
    if not fact:
        raise InvalidEvent(f"{field} is missing or malformed")


def _check_room_id(version: RoomVersion, pdu: Mapping[str, Any]) -> None:
    # An authorisation rule rejects a create event that has a room id although it determines one.
    if version.room_id_is_create_hash and pdu["type"] == CREATE and "room_id" not in pdu:
        return
    by_codepoints = version.limits_ids_by_codepoints
    _require(_is_id(is_valid_room_id, pdu.get("room_id"), by_codepoints), "room_id")


def _check_references(version: RoomVersion, pdu: Mapping[str, Any], field: str, most: int) -> None:
    references = pdu.get(field)
    if not isinstance(references, list) or len(references) > most:
        raise InvalidEvent(f"{field} is missing, malformed or too long")
    for reference in references:
        if version.event_format is EventFormat.V1:
            _require(isinstance(reference, list) and len(reference) == 2, field)
            reference, hashes = reference
            # Which hashes it has is not checked, because rooms of version 1 need relaxed checks.
            _require(isinstance(hashes, dict), field)
            # Only an event with a chosen id can refer to itself.
            _require(reference != pdu.get("event_id"), field)
        _require(_is_id(is_valid_event_id, reference, version.limits_ids_by_codepoints), field)


def _check_hashes(hashes: Any) -> None:
    _require(isinstance(hashes, dict) and isinstance(hashes.get("sha256"), str), "hashes")


def _check_signatures(signatures: Any) -> None:
    _require(isinstance(signatures, dict), "signatures")
    for of_server in signatures.values():
        _require(isinstance(of_server, dict), "signatures")
        _require(all(isinstance(text, str) for text in of_server.values()), "signatures")


def _is_id(is_valid: _Check, value: Any, in_codepoints: bool) -> bool:
    return isinstance(value, str) and is_valid(value, in_codepoints=in_codepoints)


def _is_integer(value: Any, least: int, most: int) -> bool:
    # bool is a subclass of int, but no integer in JSON.
    return type(value) is int and least <= value <= most
