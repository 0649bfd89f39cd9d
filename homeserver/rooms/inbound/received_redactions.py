"""Redactions of other servers' users, which may arrive before or after their targets.

The state before a redaction decides whether it takes effect, except in the room versions where the
authorisation rules have checked that already. No client sees a redaction without effect; if its
target arrives later, the redaction is checked then, and shown after the target.

Spec: https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
"""

from collections.abc import Sequence

import msgspec
from twisted.internet.defer import Deferred

from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.event_kinds import is_plain_redaction
from homeserver.protocol.event_types import CREATE_KEY, POWER_LEVELS_KEY
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_event_id, server_name_of
from homeserver.rooms.events.relation_rows import rows_of_redaction
from homeserver.rooms.events.stored_event import ACCEPTED, StoredEvent
from homeserver.rooms.room.admission import NO_EFFECT, RedactionEffect
from homeserver.rooms.room.changes import NO_CHANGES, EventAppended, EventsStored, RedactedEvent
from homeserver.rooms.room.event_rows import names_of, placed_rows
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.writer import RoomWriter
from homeserver.storage.database.batch import Row
from homeserver.storage.rooms.events import INSERT_CURRENT_STATE, MARK_REDACTED
from homeserver.storage.rooms.graph_edges import DELETE_PENDING_REDACTIONS, INSERT_TIMELINE_GAP

_KEYS = (CREATE_KEY, POWER_LEVELS_KEY)


class EffectiveRedaction(msgspec.Struct, frozen=True):
    """A redaction that takes effect now that its target has arrived.

    `is_backfilled` says that it was backfilled; `names` are the nids of its type and sender.
    """

    stored: StoredEvent
    is_backfilled: bool
    names: tuple[int, int]


class TargetRedactions(msgspec.Struct, frozen=True):
    """The pending redactions of an event that take effect when it arrives, oldest first.

    `rows` redact the target, and delete all its pending redactions.
    """

    effective: Sequence[EffectiveRedaction]
    rows: Sequence[Row]


class ReceivedRedactions:
    """Finds the target of a received redaction, and the pending redactions of a received event."""

    def __init__(self, storage: RoomStorage) -> None:
        self._storage = storage

    async def effect_of(self, writer: RoomWriter, redaction: StoredEvent) -> RedactionEffect:
        """The effect of an event as a redaction."""
        event, room = redaction.event, writer.room
        if event.redacts is None:
            return NO_EFFECT
        # A state event is shown as state, even if its type is that of a redaction.
        is_pending = not room.version.redactions_need_power and is_plain_redaction(event)
        by_codepoints = room.version.limits_ids_by_codepoints
        if not is_valid_event_id(event.redacts, in_codepoints=by_codepoints):
            return RedactionEffect(None, is_pending)
        found = await self._storage.events.find_many(
            room.version, room.room_nid, room.room_id, [event.redacts]
        )
        target = found.get(event.redacts)
        if target is None or target.status.rejected is not None:
            return RedactionEffect(None, is_pending, event.redacts)
        if await self._takes_effect(writer, redaction, target.event):
            return RedactionEffect(target)
        return RedactionEffect(None, is_pending)

    async def pending_of(self, writer: RoomWriter, target: StoredEvent) -> TargetRedactions | None:
        """The pending redactions of an event that has arrived; `None` if there are none."""
        waiting = writer.pending_redactions.of(target.event.event_id)
        if not waiting:
            return None
        found = await self._storage.events.load(writer.room.version, list(waiting))
        effective = []
        for number, is_backfilled in waiting.items():
            redaction = found.get(number)
            if (
                redaction is not None
                and redaction.status == ACCEPTED
                and await self._takes_effect(writer, redaction, target.event)
            ):
                event = redaction.event
                nids = await self._storage.names.nids(names_of(event))
                names = nids[event.type], nids[event.sender]
                effective.append(EffectiveRedaction(redaction, is_backfilled, names))
        rows = [DELETE_PENDING_REDACTIONS.row(writer.room.room_nid, target.event.event_id)]
        if effective:
            rows.append(MARK_REDACTED.row(target.event_nid, effective[0].stored.event_nid))
            rows += rows_of_redaction(target)
        return TargetRedactions(effective, rows)

    def release(
        self, writer: RoomWriter, target: StoredEvent, redactions: TargetRedactions
    ) -> Deferred[None] | None:
        """Redact a target that has just been appended to the log, and show its pending redactions.

        Fires when the latter are durable, `None` if there was nothing to show.
        """
        done = None
        writer.pending_redactions.settle(target.event.event_id)
        for each in redactions.effective:
            target.redact(each.stored.event)
            if each.stored.position is None:
                done = self._show(writer, target, each)
        return done

    def _show(
        self, writer: RoomWriter, target: StoredEvent, redaction: EffectiveRedaction
    ) -> Deferred[None]:
        room, stored, current = writer.room, redaction.stored, writer.extremities
        if redaction.is_backfilled:
            stored.position = -stored.event_nid
            rows = placed_rows(room.room_nid, stored, redaction.names)
            position = self._storage.log.next_position()
            entry = EventsStored(
                position, room.room_nid, [stored], redacts=RedactedEvent.of(target)
            )
            return self._storage.log.append(entry, rows)
        position = stored.position = self._storage.log.next_position()
        rows = placed_rows(room.room_nid, stored, redaction.names, current.all_json)
        # The state after the redaction is no longer the current one.
        rows.append(INSERT_CURRENT_STATE.row(room.room_nid, position, current.root, None))
        is_after_gap = writer.close_gap()
        if is_after_gap:
            rows.append(INSERT_TIMELINE_GAP.row(room.room_nid, position))
        return writer.append_entry(
            EventAppended(
                position,
                room.room_nid,
                current.root,
                NO_CHANGES,
                is_fork=True,
                stored=stored,
                redacts=RedactedEvent.of(target),
                should_send=False,
                is_last=False,
                is_after_gap=is_after_gap,
            ),
            rows,
        )

    async def _takes_effect(
        self, writer: RoomWriter, redaction: StoredEvent, target: Event
    ) -> bool:
        version, event = writer.room.version, redaction.event
        if version.redactions_need_power or server_name_of(event.sender) == server_name_of(
            target.sender
        ):
            return True
        state = await self._storage.state_at(version, redaction.state_before, _KEYS)
        levels = AuthState({key: stored.event for key, stored in state.items()}).power_levels
        return levels.of(event.sender) >= levels.redact
