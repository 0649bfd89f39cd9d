"""An event on its way into a room's graph, and what it makes of the room."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from homeserver.protocol.identifiers import is_valid_event_id
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.events.event_draft import EventDraft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import (
    Changes,
    EventAppended,
    RedactionPending,
    StateChanged,
    StateKey,
)
from homeserver.rooms.room.extremities import ForwardExtremities
from homeserver.rooms.room.room import Room
from homeserver.storage.database.batch import Row


@dataclass(frozen=True, slots=True)
class RedactionEffect:
    """What an event does as a redaction; nothing, where it is none.

    `target` is the event that is redacted. As long as there is none the redaction is withheld from
    clients, but in the first room versions; `waits_for` is the id of an event that may yet come.

    Spec: https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
    """

    target: StoredEvent | None = None
    is_pending: bool = False
    waits_for: str | None = None


NO_EFFECT = RedactionEffect()


@dataclass(frozen=True, slots=True)
class ResolvedDraft:
    """A draft with the event that it redacts, if that is stored, and what it does as a redaction.

    That the redaction may have an effect is checked elsewhere.
    """

    draft: EventDraft
    target: StoredEvent | None
    effect: RedactionEffect


def resolve_draft(
    version: RoomVersion, draft: EventDraft, target: StoredEvent | None
) -> ResolvedDraft:
    """A draft that redacts `target`, or an event that is not stored, or nothing."""
    if draft.redacts is None or target is not None:
        effect = NO_EFFECT if target is None else RedactionEffect(target)
        return ResolvedDraft(draft, target, effect)
    waits_for = draft.redacts if is_valid_event_id(draft.redacts) else None
    effect = RedactionEffect(None, not version.redactions_need_power, waits_for)
    return ResolvedDraft(draft, None, effect)


@dataclass(frozen=True, slots=True)
class AdmittedEvent:
    """An event that enters the graph, and what it makes of the room.

    `extremities` is the room's from now on, `changes` what has become current since the head before
    it, `former` the member events of those whom the state does not know any more. `rows` make the
    states durable that came with it. `backward_extremities` are the events before it that are not
    here, with its depth; with `is_after_gap` the timeline has events that none of these are
    between.
    """

    stored: StoredEvent
    extremities: ForwardExtremities
    changes: Changes
    former: Mapping[StateKey, StoredEvent] = field(default_factory=dict)
    is_fork: bool = False
    is_last: bool = True
    should_send: bool = True
    effect: RedactionEffect = NO_EFFECT
    rows: Sequence[Row] = ()
    was_outlier: bool = False
    backward_extremities: Mapping[str, int] = field(default_factory=dict)
    is_after_gap: bool = False
    is_first: bool = False

    def fact(self, room: Room, position: int) -> StateChanged:
        """What the log tells of it at its position."""
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
            redacts=self.effect.target,
            should_send=self.should_send,
            is_last=self.is_last and not self.is_after_gap,
            is_after_gap=self.is_after_gap,
            version=room.version if self.is_first else None,
        )
