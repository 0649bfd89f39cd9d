"""Events: immutable values around the exact bytes that were signed.

An `Event` is made in one of three ways, with the same result:

- `build_event`: a local one, from its parts; hashed and signed here;
- `Event.from_pdu`: another server's, checked against the event format of the room version;
- `Event.from_json`: a stored one, taken as it is.

`json` is the stored form: canonical JSON with hashes and signatures and without `unsigned`. The
values in an event (`pdu`, `content`) must never be changed: a change needs a new event.

Decoded, an event takes several times the memory of its JSON, and most events are sent on without
being looked into. So a stored event is decoded as far as it is read, and `forget_decoded` gives the
memory back; what was forgotten is decoded again where it is needed.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final

import msgspec

from homeserver.protocol.event_format import (
    EventTooLarge,
    InvalidEvent,
    check_event_size,
    check_field_sizes,
    check_format,
)
from homeserver.protocol.event_types import REDACTION
from homeserver.protocol.identifiers import server_name_of
from homeserver.protocol.redaction import redact
from homeserver.protocol.room_versions import EventFormat, EventIdFormat, RoomVersion
from homeserver.protocol.signing.canonical_json import (
    NotCanonical,
    check_canonical,
    check_customary,
    check_depth,
)
from homeserver.protocol.signing.hashes import (
    content_hash,
    encode_event,
    event_id_of,
    event_id_of_hash,
    reference_hash,
    signing_bytes,
)
from homeserver.protocol.signing.signatures import SigningKey, add_signature
from homeserver.protocol.signing.unpadded_base64 import encode_base64, encode_base64_url_safe

__all__ = ["Event", "EventReference", "EventTooLarge", "InvalidEvent", "build_event"]

EventReference = str | Sequence[str | Mapping[str, str]]
"""A reference to another event: its id; in room versions 1 and 2 `[id, {"sha256": hash}]`."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_NO_MEMBERS: Mapping[str, Any] = MappingProxyType({})


class _Fields(msgspec.Struct):
    """The fields that every event is known by; the content is not decoded."""

    type: Any
    sender: Any
    content: msgspec.Raw
    depth: Any
    origin_server_ts: Any
    room_id: Any = None
    state_key: Any = None


class _References(msgspec.Struct):
    prev_events: list[Any]
    auth_events: list[Any]


_decode_fields = msgspec.json.Decoder(_Fields).decode
_decode_references = msgspec.json.Decoder(_References).decode


@lru_cache(maxsize=20_000)
def _shared(text: str) -> str:
    """An equal string that other events have, too. Interned strings may stay forever."""
    return text


class Event:
    """One event of a room of a known version. Equal to another if id and stored form are.

    Without a `pdu` it is decoded from `json`, as far as it is read.
    """

    __slots__ = (
        "_content",
        "_pdu",
        "depth",
        "event_id",
        "json",
        "origin_server_ts",
        "room_id",
        "sender",
        "state_key",
        "type",
        "version",
    )

    def __init__(
        self, version: RoomVersion, pdu: dict[str, Any] | None, json: bytes, event_id: str
    ) -> None:
        content: dict[str, Any] | msgspec.Raw
        if pdu is None:
            fields = _decode_fields(json)
            content, room_id, state_key = fields.content, fields.room_id, fields.state_key
            known = fields.type, fields.sender, fields.depth, fields.origin_server_ts
        else:
            content, room_id, state_key = pdu["content"], pdu.get("room_id"), pdu.get("state_key")
            known = pdu["type"], pdu["sender"], pdu["depth"], pdu["origin_server_ts"]
        event_type, sender, depth, origin_server_ts = known
        self.version: Final = version
        self.json: Final = json
        self.event_id: Final = event_id
        # Most events have these in common with others.
        self.type: Final[str] = _shared(event_type)
        self.sender: Final[str] = _shared(sender)
        self.room_id: Final[str] = _shared("!" + event_id[1:] if room_id is None else room_id)
        self.state_key: Final[str | None] = state_key
        self.depth: Final[int] = depth
        self.origin_server_ts: Final[int] = origin_server_ts
        self._pdu = pdu
        self._content: dict[str, Any] | msgspec.Raw | None = content

    @classmethod
    def from_json(cls, version: RoomVersion, json: bytes, event_id: str | None = None) -> "Event":
        """A stored event, which was checked when it was stored. The id is computed if not given."""
        if event_id is None:
            pdu = _decode(json)
            return cls(version, pdu, json, event_id_of(version, pdu))
        return cls(version, None, json, event_id)

    @classmethod
    def from_pdu(cls, version: RoomVersion, pdu: Mapping[str, Any]) -> "Event":
        """An event as received from another server, without its `unsigned`.

        Raises `InvalidEvent` unless it complies with the event format of the room version and its
        size limits. The caller must check hashes, signatures and authorisation.
        """
        signed = {name: value for name, value in pdu.items() if name != "unsigned"}
        check_format(version, signed)
        json = _encode_received(version, signed)
        check_event_size(json)
        return cls(version, signed, json, event_id_of(version, signed))

    @property
    def pdu(self) -> dict[str, Any]:
        """The whole event."""
        return _decode(self.json) if self._pdu is None else self._pdu

    @property
    def content(self) -> dict[str, Any]:
        """The content, which is decoded once."""
        content = self.encodable_content
        if isinstance(content, msgspec.Raw):
            content = self._content = _decode(content)
        return content

    @property
    def encodable_content(self) -> dict[str, Any] | msgspec.Raw:
        """The content for an encoder of JSON, which need not be decoded for it."""
        content = self._content
        if content is None:
            content = self._content = _decode_fields(self.json).content
        return content

    def forget_decoded(self) -> None:
        """Keep no more of the event than is stored of it."""
        self._pdu = self._content = None

    @property
    def is_state(self) -> bool:
        """Whether the event has a state key, and so is part of the room's state."""
        return self.state_key is not None

    @property
    def prev_event_ids(self) -> list[str]:
        """The ids of the events that this one follows in the event graph."""
        if self._pdu is None:
            return self._ids(_decode_references(self.json).prev_events)
        return self._ids(self._pdu["prev_events"])

    @property
    def auth_event_ids(self) -> list[str]:
        """The ids of the auth events that this event refers to."""
        if self._pdu is None:
            return self._ids(_decode_references(self.json).auth_events)
        return self._ids(self._pdu["auth_events"])

    @property
    def redacts(self) -> str | None:
        """The event that this one redacts, if it is a redaction and names one."""
        if self.type != REDACTION:
            return None
        holder = self.content if self.version.redacts_in_content else self.pdu
        target = holder.get("redacts")
        return target if isinstance(target, str) else None

    @property
    def hashes(self) -> dict[str, str]:
        """The content hashes by algorithm."""
        hashes: dict[str, str] = self.pdu["hashes"]
        return hashes

    @property
    def signatures(self) -> dict[str, dict[str, str]]:
        """Signatures in Base64 by server name and key id."""
        signatures: dict[str, dict[str, str]] = self.pdu["signatures"]
        return signatures

    @property
    def sender_server(self) -> str:
        """The server of the sender, which must have signed the event."""
        return server_name_of(self.sender)

    @property
    def reference(self) -> EventReference:
        """The reference to this event in `prev_events` and `auth_events` of other events."""
        if self.version.event_format is not EventFormat.V1:
            return self.event_id
        return [
            self.event_id,
            {"sha256": encode_base64(reference_hash(self.version, self.pdu))},
        ]

    def redacted(self) -> "Event":
        """The redacted event. Its id and signatures stay valid."""
        pdu = redact(self.version, self.pdu)
        return Event(self.version, pdu, encode_event(self.version, pdu), self.event_id)

    def with_signature(self, server_name: str, key_id: str, signature: bytes) -> "Event":
        """The event with one more signature: of an invited user's server, or a policy server.

        Spec: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
        """
        pdu = add_signature(self.pdu, server_name, key_id, signature)
        return Event(self.version, pdu, encode_event(self.version, pdu), self.event_id)

    def signing_bytes(self) -> bytes:
        """The bytes that signatures of this event cover."""
        return signing_bytes(self.version, self.pdu)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        return self.event_id == other.event_id and self.json == other.json

    def __hash__(self) -> int:
        return hash(self.event_id)

    def __repr__(self) -> str:
        return f"<Event {self.event_id} {self.type} in {self.room_id}>"

    def _ids(self, references: list[Any]) -> list[str]:
        if self.version.event_format is EventFormat.V1:
            return [reference[0] for reference in references]
        ids: list[str] = references
        return ids


def build_event(
    version: RoomVersion,
    *,
    room_id: str | None,
    type: str,  # noqa: A002  # the field's name
    sender: str,
    content: dict[str, Any],
    state_key: str | None = None,
    prev_events: Sequence[Event | EventReference],
    auth_events: Sequence[Event | EventReference],
    depth: int,
    origin_server_ts: int,
    redacts: str | None = None,
    members: Mapping[str, Any] = _NO_MEMBERS,
    server_name: str,
    key: SigningKey,
) -> Event:
    """A new event of this server: hashed, signed, and named.

    `room_id` is None for a create event that determines the room id. `depth` beyond the version's
    limit is set to the limit. `redacts` is put where the version requires it. `members` are further
    ones of the top level. In versions 1 and 2 a remote event is named by `Event.reference`, not by
    its id alone.

    Raises `InvalidEvent` if the content is not canonical JSON, and `EventTooLarge`.

    Spec: https://spec.matrix.org/v1.19/server-server-api/#adding-hashes-and-signatures-to-outgoing-events
    """
    pdu: dict[str, Any] = {
        "auth_events": _references(auth_events),
        "content": content,
        "depth": min(depth, version.max_depth),
        "origin_server_ts": origin_server_ts,
        "prev_events": _references(prev_events),
        "sender": sender,
        "type": type,
    }
    if room_id is not None:
        pdu["room_id"] = room_id
    if state_key is not None:
        pdu["state_key"] = state_key
    if redacts is not None:
        _name_redacted_event(version, pdu, redacts)
    if members:
        pdu |= members
    return _hash_and_sign(version, pdu, server_name, key)


def _name_redacted_event(version: RoomVersion, pdu: dict[str, Any], redacts: str) -> None:
    if version.redacts_in_content:
        pdu["content"] = {**pdu["content"], "redacts": redacts}
    else:
        pdu["redacts"] = redacts


def _references(events: Sequence[Event | EventReference]) -> list[EventReference]:
    return [event.reference if isinstance(event, Event) else event for event in events]


def _hash_and_sign(
    version: RoomVersion, pdu: dict[str, Any], server_name: str, key: SigningKey
) -> Event:
    """Complete the event, encoded three times: to hash, to sign (which names it too), to store."""
    try:
        check = check_canonical if version.strict_canonical_json else check_customary
        check(pdu)
        if version.event_id_format is EventIdFormat.CHOSEN:
            pdu["event_id"] = _choose_event_id(version, pdu, server_name)
        pdu["hashes"] = {"sha256": content_hash(version, pdu)}
        signed = signing_bytes(version, pdu)
        pdu["signatures"] = {server_name: {key.key_id: encode_base64(key.sign(signed))}}
        json = encode_event(version, pdu)
    except NotCanonical as error:
        raise InvalidEvent(str(error)) from error
    check_field_sizes(pdu)
    check_event_size(json)
    if version.event_id_format is EventIdFormat.CHOSEN:
        event_id: str = pdu["event_id"]
    else:
        event_id = event_id_of_hash(version, sha256(signed).digest())
    return Event(version, pdu, json, event_id)


def _choose_event_id(version: RoomVersion, pdu: dict[str, Any], server_name: str) -> str:
    # The specification leaves the choice to the server. No two local events follow the same events
    # and are equal in all else, so a hash is as unique as a random string, and needs no randomness.
    # 16 bytes of it fit into the limit beside the longest server name.
    digest = sha256(encode_event(version, pdu)).digest()
    return f"${encode_base64_url_safe(digest[:16])}:{server_name}"


def _encode_received(version: RoomVersion, pdu: dict[str, Any]) -> bytes:
    try:
        check = check_canonical if version.strict_canonical_json else check_depth
        check(pdu)
        return encode_event(version, pdu)
    except NotCanonical as error:
        raise InvalidEvent(str(error)) from error
