"""An accepted event on its way into a room's graph, and its effects on the room."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from homeserver.protocol.identifiers import is_valid_event_id
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.events.event_draft import EventDraft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import (
    NO_EXTREMITIES,
    Changes,
    EventAppended,
    RedactedEvent,
    RedactionPending,
    StateChanged,
    StateKey,
)
from homeserver.rooms.room.extremities import ForwardExtremities
from homeserver.rooms.room.room import Room
from homeserver.storage.database.batch import Row


class RedactionEffect(msgspec.Struct, frozen=True):
    """The effect of an event as a redaction; none, if it is not one.

    `target` is the event that is redacted. Without one the redaction is pending, and clients do not
    see it, except in the first room versions; `waits_for` is the id of an event that may still
    arrive.

    Spec: https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
    """

    target: StoredEvent | None = None
    is_pending: bool = False
    waits_for: str | None = None

    @property
    def redacted(self) -> RedactedEvent | None:
        """The target as log entries name it."""
        return None if self.target is None else RedactedEvent.of(self.target)


NO_EFFECT = RedactionEffect()
_NO_FORMER: Mapping[StateKey, StoredEvent] = MappingProxyType({})


class ResolvedDraft(msgspec.Struct, frozen=True):
    """A draft with the event that it redacts, if that is stored, and its effect as a redaction.

    `EventBuilder` checks whether the redaction is allowed.
    """

    draft: EventDraft
    target: StoredEvent | None
    effect: RedactionEffect


def resolve_draft(
    version: RoomVersion, draft: EventDraft, target: StoredEvent | None
) -> ResolvedDraft:
    """A draft with its effect as a redaction; `target` is `None` if the event is not stored."""
    if draft.redacts is None or target is not None:
        effect = NO_EFFECT if target is None else RedactionEffect(target)
        return ResolvedDraft(draft, target, effect)
    waits_for = draft.redacts if is_valid_event_id(draft.redacts) else None
    effect = RedactionEffect(None, not version.redactions_need_power, waits_for)
    return ResolvedDraft(draft, None, effect)


class AdmittedEvent(msgspec.Struct, frozen=True):
    """An event that enters the graph, and its effects on the room.

    `extremities` are the room's forward extremities from now on, `changes` the changes of the
    current state, `former` the member events of users who are no longer in the state. `rows` make
    the event's states durable. `backward_extremities` are the missing events before it,
    with its depth; with `is_after_gap` none of these are between events of the timeline.
    """

    stored: StoredEvent
    extremities: ForwardExtremities
    changes: Changes
    former: Mapping[StateKey, StoredEvent] = _NO_FORMER
    is_fork: bool = False
    is_last: bool = True
    should_send: bool = True
    effect: RedactionEffect = NO_EFFECT
    rows: Sequence[Row] = ()
    was_outlier: bool = False
    backward_extremities: Mapping[str, int] = NO_EXTREMITIES
    is_after_gap: bool = False
    is_first: bool = False

    def log_entry(self, room: Room, position: int) -> StateChanged:
        """The entry of the log for the event at its position."""
        if self.effect.is_pending:
            return RedactionPending(
                position,
                room.room_nid,
                self.extremities.root,
                self.changes,
                is_fork=True,
                backward_extremities=self.backward_extremities,
                stored=self.stored,
                should_send=self.should_send,
            )
        return EventAppended(
            position,
            room.room_nid,
            self.extremities.root,
            self.changes,
            self.is_fork,
            self.backward_extremities,
            stored=self.stored,
            redacts=self.effect.redacted,
            should_send=self.should_send,
            is_last=self.is_last and not self.is_after_gap,
            is_after_gap=self.is_after_gap,
            version=room.version if self.is_first else None,
        )
