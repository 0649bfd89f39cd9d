"""The first checks performed on receipt of a PDU: format, signatures, hashes.

They need only the event itself and the keys of servers. A PDU that fails the first two is dropped;
an event whose content hash is wrong is redacted, and then checked further and stored.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from twisted.logger import Logger

from federation.keys.keyring import Keyring
from homeserver.concurrency.cooperative import build_cooperatively, build_present_cooperatively
from homeserver.protocol.events import Event, InvalidEvent
from homeserver.protocol.identifiers import is_valid_room_id
from homeserver.protocol.json_elements import BadElement, decode_anyhow, decode_element
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.signing.hashes import check_content_hash, event_id_of
from homeserver.storage.rooms.names import is_storable

MAX_EXAMPLES = 3  # dropped PDUs that the log shows

log = Logger()


class PduChecks:
    """Turns PDUs of other servers into checked events."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def check(
        self,
        version: RoomVersion,
        room_id: str,
        pdus: Sequence[Any],
        *,
        signers: Collection[str] = (),
    ) -> list[Event | str]:
        """For each PDU the event, or the reason why it is dropped. All must be of this room.

        `signers` are servers that must have signed each PDU, in addition to those that the rules
        name. A PDU may be JSON that is not decoded yet, as the thousands of events of a room's
        state are. PDUs are checked in time slices.
        """
        clock = self._keyring.clock
        outcomes = await build_cooperatively(
            clock, (_parsed(version, room_id, pdu) for pdu in pdus)
        )
        events = [outcome for outcome in outcomes if isinstance(outcome, Event)]
        refusals = await self._keyring.verify_events(events, signers)
        bad = {id(event): error for event, error in zip(events, refusals, strict=True) if error}
        return await build_cooperatively(
            clock,
            (
                outcome
                if isinstance(outcome, str)
                else f"bad signature: {bad[id(outcome)]}"
                if id(outcome) in bad
                else with_checked_hash(outcome)
                for outcome in outcomes
            ),
        )

    async def valid_events(
        self,
        version: RoomVersion,
        room_id: str,
        pdus: Iterable[Any],
        *,
        but: Iterable[msgspec.Raw] = (),
    ) -> list[Event]:
        """The events among the PDUs, each once; dropped PDUs are logged, in one line.

        PDUs that are also in `but`, byte for byte, are left out.
        """
        seen = set(await build_cooperatively(self._keyring.clock, map(_digest, but)))
        distinct = await build_present_cooperatively(self._keyring.clock, _distinct(pdus, seen))
        events: dict[str, Event] = {}
        dropped: list[str] = []
        for outcome in await self.check(version, room_id, distinct):
            if isinstance(outcome, Event):
                events.setdefault(outcome.event_id, outcome)
            else:
                dropped.append(outcome)
        log_dropped(room_id, dropped)
        return list(events.values())


def log_dropped(room_id: str, reasons: Sequence[str]) -> None:
    """Log how many PDUs of a room were dropped, with examples of the reasons."""
    if reasons:
        log.info(
            "dropped {count} invalid PDUs of {room}: {examples}",
            count=len(reasons),
            room=room_id,
            examples=list(dict.fromkeys(reasons[:MAX_EXAMPLES])),
        )


class ReceivedPdu(msgspec.Struct, frozen=True):
    """An element of a transaction; `fault` is the reason why it is not to be used."""

    value: Mapping[str, Any]
    fault: str | None = None

    def event_id(self, version: RoomVersion) -> str | None:
        """The id of the event, if it can be computed."""
        try:
            return event_id_of(version, self.value)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def read_pdu(raw: msgspec.Raw) -> ReceivedPdu | None:
    """Decode an element of a transaction; `None` if it does not even name its room."""
    fault = None
    try:
        value = decode_element(raw)
    except BadElement as error:
        value, fault = decode_anyhow(raw), f"malformed: {error}"
    return ReceivedPdu(value, fault) if isinstance(value, Mapping) else None


def with_checked_hash(event: Event) -> Event:
    """The event, redacted unless its content hash is right."""
    return event if check_content_hash(event.version, event.pdu) else event.redacted()


def room_id_of(pdu: Mapping[str, Any]) -> str | None:
    """The room that an unchecked PDU is for; `None` if it names none."""
    room_id = pdu.get("room_id")
    return room_id if isinstance(room_id, str) and is_valid_room_id(room_id) else None


def _parsed(version: RoomVersion, room_id: str, pdu: Any) -> Event | str:
    if isinstance(pdu, ReceivedPdu):
        if pdu.fault is not None:
            return pdu.fault
        pdu = pdu.value
    if isinstance(pdu, msgspec.Raw):
        try:
            pdu = decode_element(pdu)
        except BadElement as error:
            return f"malformed: {error}"
    if not isinstance(pdu, Mapping):
        return "an event is an object"
    try:
        event = Event.from_pdu(version, pdu)
    except InvalidEvent as error:
        return f"malformed: {error}"
    if event.room_id != room_id:
        return f"belongs to another room: {event.room_id}"
    if not all(map(is_storable, (event.type, event.sender, event.state_key or ""))):
        return "malformed: type and state_key are not valid Unicode"
    return event


def _digest(raw: msgspec.Raw) -> int:
    # Python's hash is keyed, so that no sender can choose two PDUs with the same hash.
    return hash(bytes(raw))


def _distinct(pdus: Iterable[Any], seen: set[int]) -> Iterator[Any]:
    """The PDUs, each once: `None` in place of one whose bytes are in `seen`; `seen` is extended."""
    for pdu in pdus:
        if isinstance(pdu, msgspec.Raw):
            digest = _digest(pdu)
            if digest in seen:
                yield None
                continue
            seen.add(digest)
        yield pdu
