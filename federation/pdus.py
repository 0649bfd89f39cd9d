"""The first checks on receipt of events: format, signatures, hashes.

They ask nothing but the event itself and the keys of servers. What fails the first two is dropped;
an event whose content is not what its hash says is judged, and kept, redacted.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from twisted.logger import Logger

from federation.keyring import Keyring
from homeserver.protocol.events import Event, InvalidEvent
from homeserver.protocol.hashes import check_content_hash
from homeserver.protocol.identifiers import is_valid_room_id
from homeserver.protocol.room_versions import RoomVersion
from homeserver.storage.names import is_storable
from homeserver.streams.turns import in_turns

log = Logger()


class PduChecks:
    """Turns what other servers send into events that are what they say they are."""

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
        """For each PDU the event, or why it is dropped. All must be of this room.

        `signers` are servers that must have signed each, beside those that the rules name.
        A PDU may be JSON that was not looked into yet, as the thousands of a room's state are. They
        are checked a few at a time, between which others have their turn.
        """
        clock = self._keyring.clock
        outcomes = await in_turns(clock, (_parsed(version, room_id, pdu) for pdu in pdus))
        events = [outcome for outcome in outcomes if isinstance(outcome, Event)]
        refusals = await self._keyring.verify_events(events, signers)
        bad = {id(event): error for event, error in zip(events, refusals, strict=True) if error}
        return await in_turns(
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

    async def good(self, version: RoomVersion, room_id: str, pdus: Iterable[Any]) -> list[Event]:
        """The events among the PDUs; what is dropped is logged."""
        events = []
        for outcome in await self.check(version, room_id, list(pdus)):
            if isinstance(outcome, Event):
                events.append(outcome)
            else:
                log.info("an event of {room} is dropped: {reason}", room=room_id, reason=outcome)
        return events


def with_checked_hash(event: Event) -> Event:
    """The event, redacted unless its content hash is right."""
    return event if check_content_hash(event.version, event.pdu) else event.redacted()


def room_id_of(pdu: Mapping[str, Any]) -> str | None:
    """The room that an unchecked PDU is for; `None` if it names none."""
    room_id = pdu.get("room_id")
    return room_id if isinstance(room_id, str) and is_valid_room_id(room_id) else None


def _parsed(version: RoomVersion, room_id: str, pdu: Any) -> Event | str:
    if isinstance(pdu, msgspec.Raw):
        pdu = msgspec.json.decode(pdu)
    if not isinstance(pdu, Mapping):
        return "an event is an object"
    try:
        event = Event.from_pdu(version, pdu)
    except InvalidEvent as error:
        return f"malformed: {error}"
    if event.room_id != room_id:
        return f"of another room: {event.room_id}"
    if not all(map(is_storable, (event.type, event.sender, event.state_key or ""))):
        return "malformed: type and state_key hold what is no text"
    return event
