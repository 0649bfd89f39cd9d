"""Hashes of events: the content hash inside an event, and the reference hash that names it.

Both are SHA-256 over canonical JSON. The content hash covers the event as its sender wrote it; the
reference hash covers the redacted event with its content hash, and so survives redaction.

All functions take events that have passed the JSON rules of their room version
(`canonical_json.py`), and ignore `unsigned`.

Spec: https://spec.matrix.org/v1.19/server-server-api/#signing-events
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from homeserver.protocol.redaction import redact
from homeserver.protocol.room_versions import EventIdFormat, RoomVersion
from homeserver.protocol.signing.canonical_json import encode_canonical_loose, encode_checked
from homeserver.protocol.signing.unpadded_base64 import (
    decode_base64,
    encode_base64,
    encode_base64_url_safe,
)

_NOT_IN_CONTENT_HASH = frozenset({"unsigned", "signatures", "hashes"})


def content_hash(version: RoomVersion, pdu: Mapping[str, Any]) -> str:
    """The content hash in unpadded Base64, for `hashes.sha256`."""
    return encode_base64(_content_digest(version, pdu))


def check_content_hash(version: RoomVersion, pdu: Mapping[str, Any]) -> bool:
    """Whether `hashes.sha256` matches the content. If not, only the redacted event may be used."""
    hashes = pdu.get("hashes")
    claimed = hashes.get("sha256") if isinstance(hashes, dict) else None
    if not isinstance(claimed, str):
        return False
    try:
        return decode_base64(claimed) == _content_digest(version, pdu)
    except ValueError:
        return False


def signing_bytes(version: RoomVersion, pdu: Mapping[str, Any]) -> bytes:
    """The redacted canonical JSON of an event, which signatures and the reference hash cover."""
    redacted = redact(version, pdu)
    redacted.pop("signatures", None)
    return encode_event(version, redacted)


def reference_hash(version: RoomVersion, pdu: Mapping[str, Any]) -> bytes:
    """The 32 bytes of the reference hash."""
    return sha256(signing_bytes(version, pdu)).digest()


def event_id_of(version: RoomVersion, pdu: Mapping[str, Any]) -> str:
    """The event id: the field `event_id` in the oldest versions, the hash in all others."""
    if version.event_id_format is EventIdFormat.CHOSEN:
        event_id: str = pdu["event_id"]
        return event_id
    return event_id_of_hash(version, reference_hash(version, pdu))


def event_id_of_hash(version: RoomVersion, digest: bytes) -> str:
    """The event id for a reference hash, in room versions whose ids are hashes."""
    if version.event_id_format is EventIdFormat.HASH:
        return "$" + encode_base64(digest)
    return "$" + encode_base64_url_safe(digest)


def encode_event(version: RoomVersion, pdu: Mapping[str, Any]) -> bytes:
    """Canonical JSON of an event, or a part of one, that has passed its room version's rules."""
    return encode_checked(pdu) if version.strict_canonical_json else encode_canonical_loose(pdu)


def _content_digest(version: RoomVersion, pdu: Mapping[str, Any]) -> bytes:
    hashed = {key: value for key, value in pdu.items() if key not in _NOT_IN_CONTENT_HASH}
    return sha256(encode_event(version, hashed)).digest()
