"""Redactions of other servers' users: they may come before or after their targets.

Whether a redaction takes effect is judged by the state that it was sent in, except in the room
versions where the authorisation rules have judged it already.

Spec: https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
"""

from homeserver.protocol.auth_state import AuthState
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_event_id, server_name_of
from homeserver.rooms.relation_rows import rows_of_redaction
from homeserver.rooms.stored_event import StoredEvent
from homeserver.rooms.stores import Stores
from homeserver.rooms.writer import RoomWriter
from homeserver.storage.batch import Row
from homeserver.storage.events import MARK_REDACTED
from homeserver.storage.graph_edges import INSERT_EARLY_REDACTION

_KEYS = (("m.room.create", ""), ("m.room.power_levels", ""))


class ReceivedRedactions:
    """Finds what a received event redacts, and what redacts it."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    async def target_of(
        self, writer: RoomWriter, redaction: StoredEvent
    ) -> tuple[StoredEvent | None, list[Row]]:
        """The event that takes the effect; rows that remember the redaction if it is not here."""
        target_id, room = redaction.event.redacts, writer.room
        if target_id is None or not is_valid_event_id(target_id):
            return None, []
        found = await self._stores.events.find_many(
            room.version, room.number, room.room_id, [target_id]
        )
        target = found.get(target_id)
        if target is None:
            writer.early_redactions.setdefault(target_id, []).append(redaction.number)
            return None, [INSERT_EARLY_REDACTION.row(room.number, target_id, redaction.number)]
        if not await self._takes_effect(writer, redaction, target.event):
            return None, []
        return target, []

    async def early(self, writer: RoomWriter, target: StoredEvent) -> list[Row]:
        """Redact an event whose redaction came before it; the rows that say so."""
        numbers = writer.early_redactions.get(target.event.event_id, ())
        redactions = await self._stores.events.load_in_order(writer.room.version, numbers)
        for redaction in redactions:
            if redaction.position is not None and await self._takes_effect(
                writer, redaction, target.event
            ):
                target.redact(redaction.event)
                mark = MARK_REDACTED.row(target.number, redaction.number)
                return [mark, *rows_of_redaction(target)]
        return []

    async def _takes_effect(
        self, writer: RoomWriter, redaction: StoredEvent, target: Event
    ) -> bool:
        version, event = writer.room.version, redaction.event
        if version.redactions_need_power or server_name_of(event.sender) == server_name_of(
            target.sender
        ):
            return True
        state = await self._stores.state_at(version, redaction.state_before, _KEYS)
        levels = AuthState({key: stored.event for key, stored in state.items()}).power_levels
        return levels.of(event.sender) >= levels.redact
