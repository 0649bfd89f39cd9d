"""The room writer: the only way to change a room.

It holds what the next event needs: the forward extremities, the root of the current state, and what
has been queued but not yet published. A message in an active room is therefore authorised, signed
and queued without yielding to the reactor and without a database read, and nothing can come between
the check and the write. If something is not in memory the attempt ends with `NotInMemory`, the
missing data is loaded, and the attempt is repeated from the start, against the state as it is then.

Every event that this server makes is checked here as other servers will check it
(`local_event_checks.py`). Events of other servers are checked in
`homeserver/rooms/inbound/receiver.py`, and enter by `admit`.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec
from twisted.internet.defer import Deferred

from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.errors import MatrixError, Unavailable
from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import ClientTransaction, EventDraft
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.relation_rows import rows_of_redaction
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.admission import (
    NO_EFFECT,
    AdmittedEvent,
    RedactionEffect,
)
from homeserver.rooms.room.changes import (
    Changes,
    DirectoryVisibilityChanged,
    StateChanged,
    StateKey,
)
from homeserver.rooms.room.draft_senders import DraftSender
from homeserver.rooms.room.event_builder import EventBuilder
from homeserver.rooms.room.event_rows import admission_rows
from homeserver.rooms.room.extremities import ForwardExtremities
from homeserver.rooms.room.inbound_state import InboundState
from homeserver.rooms.room.local_event_checks import check_own_event
from homeserver.rooms.room.pending_redactions import PendingRedactions
from homeserver.rooms.room.queued_state import QueuedState
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.storage.database.batch import Row
from homeserver.storage.rooms.events import MARK_REDACTED
from homeserver.storage.rooms.rooms import SET_PUBLISHED


class RoomWriter:
    """Writes the events of one room; there is only one writer for a room at any time.

    `inbound` is the state of receiving events; `pending_redactions` wait for targets that are not
    stored.
    """

    def __init__(
        self,
        room: Room,
        extremities: ForwardExtremities,
        local_server: LocalServer,
        storage: RoomStorage,
        senders: Sequence[DraftSender] = (),
        pending_redactions: PendingRedactions | None = None,
    ) -> None:
        self.room = room
        self.local_server = local_server
        self.storage = storage
        self.inbound = InboundState(None if room.partial is None else room.partial.join_id)
        self.pending_redactions = pending_redactions or PendingRedactions(room.room_nid)
        self._senders = senders
        self._log, self._names, self._events = storage.log, storage.names, storage.events
        self._extremities = extremities
        self._backward_extremities = dict(room.backward_extremities)
        self._is_gap_open = extremities.begins_with_gap(room.backward_extremities)
        self._current = QueuedState(room, storage.events)
        self._builder = EventBuilder(room, local_server, storage, self._current)
        self._pins = 0
        self._queued_at = 0  # position of the last entry that was handed to the log

    @property
    def extremities(self) -> ForwardExtremities:
        """The forward extremities and the current state, queued events included."""
        return self._extremities

    @property
    def backward_extremities(self) -> Mapping[str, int]:
        """As `Room.backward_extremities`, queued events included."""
        return self._backward_extremities

    @property
    def auth(self) -> AuthState:
        """The current state as the authorisation rules read it, queued events included.

        Reading it may raise `NotInMemory`.
        """
        return self._current.auth

    @property
    def is_busy(self) -> bool:
        """Whether an entry has not been published yet, or a request has pinned the writer."""
        return self._pins > 0 or bool(self._current) or self._queued_at > self.room.last_position

    @property
    def is_pinned(self) -> bool:
        """Whether a request has pinned the writer."""
        return self._pins > 0

    def pin(self) -> None:
        """Keep the writer, and its room, in memory until `unpin`."""
        self._pins += 1

    def unpin(self) -> None:
        """One request less needs the writer in memory."""
        self._pins -= 1

    async def send(
        self, draft: EventDraft, transaction: ClientTransaction | None = None
    ) -> StoredEvent:
        """Append one event; returns when it is durable and published.

        A state event that would change nothing is not sent: the current one is returned. One that
        is sticky has an effect in any case.

        Raises `Forbidden` if the auth rules do not allow it, `TooLarge` and `BadJson` if it is not
        a valid event, `Unavailable` while the database is unavailable.
        """
        while True:
            try:
                if draft.state_key is not None and draft.sticky is None:
                    unchanged = self._unchanged(draft)
                    if unchanged is not None:
                        return unchanged
                for sender in self._senders:
                    if sender.applies_to(self, draft):
                        sent = await sender.send(self, draft, transaction)
                        if sent is not None:
                            return sent
                (stored,), done = self.append([draft], transaction)
                break
            except NotInMemory as missing:
                await missing.load()
        await done
        return stored

    def sender_of(self, draft: EventDraft) -> DraftSender | None:
        """The sender that a draft needs, as the room is now; `None` if it can be appended."""
        return next((each for each in self._senders if each.applies_to(self, draft)), None)

    def append(
        self,
        drafts: Sequence[EventDraft],
        transaction: ClientTransaction | None = None,
        *,
        create: StoredEvent | None = None,
        more_rows: Sequence[Row] = (),
    ) -> tuple[list[StoredEvent], Deferred[None]]:
        """Queue events, all or none, without waiting; the Deferred fires when they are durable.

        `create` is the room's create event if this call creates the room; `more_rows` are written
        together with it.

        Raises `NotInMemory`, what `send` raises, and `Unavailable` in a room that has more branches
        than one event joins.
        """
        self._log.check_open()
        if self._extremities.is_wide:
            raise Unavailable("The room has too many branches for this")
        saved = self._extremities, self._current.snapshot(), self._is_gap_open
        try:
            built = list(self.prepare(drafts, transaction, create=create, more_rows=more_rows))
        except BaseException:
            self._extremities, snapshot, self._is_gap_open = saved
            self._current.restore(snapshot)
            raise
        done: Deferred[None] | None = None
        for admitted, rows in built:
            done = self._queue(admitted, admitted.stored.stored_at, rows)
        assert done is not None
        return [admitted.stored for admitted, _ in built], done

    def prepare(
        self,
        drafts: Iterable[EventDraft],
        transaction: ClientTransaction | None = None,
        *,
        create: StoredEvent | None = None,
        more_rows: Sequence[Row] = (),
    ) -> Iterator[tuple[AdmittedEvent, list[Row]]]:
        """Make events, each following the one before, with their rows; nothing is queued yet."""
        if create is not None:
            check_own_event(create.event, AuthState({}), self.local_server.server_name)
            first = self._admitted(create, (), rows=more_rows, is_first=True)
            yield first, self._advance(first, create.stored_at)
        for draft in drafts:
            resolved = self._builder.resolve(draft)
            try:
                stored, cited = self._builder.build(resolved, self._extremities, transaction)
            except MatrixError:
                if draft.is_optional:
                    continue
                raise
            if resolved.effect.is_pending:
                stored.position = None
            admitted = self._admitted(stored, cited, resolved.effect)
            yield admitted, self._advance(admitted, stored.stored_at)

    def admit(self, *admitted_events: AdmittedEvent) -> Deferred[None]:
        """Queue events that were checked by the present extremities, all or none.

        Fires when they are durable. Raises `NotInMemory`, and `Unavailable` while the database is
        unavailable; then nothing has changed.
        """
        self._log.check_open()
        built = []
        try:
            for admitted in admitted_events:
                position = self._log.next_position()
                is_after_gap = not admitted.is_first and (
                    admitted.is_after_gap or self._is_gap_open
                )
                admitted = msgspec.structs.replace(admitted, is_after_gap=is_after_gap)
                admitted.stored.position = None if admitted.effect.is_pending else position
                built.append((admitted, position, self._advance(admitted, position)))
        except BaseException:
            for admitted in admitted_events:
                admitted.stored.position = None
            raise
        return [self._queue(*each) for each in built][-1]

    def append_entry(self, entry: StateChanged, rows: Sequence[Row]) -> Deferred[None]:
        """Queue a log entry for which the extremities need not change."""
        self._queued_at = entry.position
        return self._log.append(entry, rows)

    def change_state(
        self, entry: StateChanged, extremities: ForwardExtremities, rows: Sequence[Row]
    ) -> Deferred[None]:
        """Queue a change of the state that no event makes, and its rows. Raises `Unavailable`."""
        self._log.check_open()
        self._current.change(entry.position, entry.changes)
        self._extremities = extremities
        return self.append_entry(entry, rows)

    def set_published(self, *, published: bool) -> Deferred[None]:
        """Queue that the room directory lists the room from now on, or no longer."""
        number = self.room.room_nid
        entry = DirectoryVisibilityChanged(self._log.next_position(), number, published)
        return self._log.append(entry, [SET_PUBLISHED.row(number, published)])

    def fill_gap(self, event_id: str, missing: Mapping[str, int]) -> int | None:
        """Record that a backfilled event is stored, and which events are `missing` before it.

        Returns the depth of the event after it, if it was a backward extremity.
        """
        depth = self._backward_extremities.pop(event_id, None)
        self._backward_extremities |= missing
        return depth

    def close_gap(self) -> bool:
        """Whether the event about to enter the timeline is after a gap; later ones are not."""
        is_open, self._is_gap_open = self._is_gap_open, False
        return is_open

    def preview(
        self,
        draft: EventDraft,
        signers: Collection[str] = (),
        follows: Sequence[StoredEvent] | None = None,
    ) -> Event:
        """The event that a draft would become now; nothing is changed. Raises what `append` raises.

        It becomes that event if it is appended before the reactor runs again and has its own
        timestamp. `signers` are servers that will sign it before it is sent. An event that
        `follows` only some branches must be received instead of appended.
        """
        self._log.check_open()
        resolved = self._builder.resolve(draft)
        stored, cited = self._builder.build(
            resolved, self._extremities, signers=signers, follows=follows
        )
        # Data that appending the draft would lack is found to be missing now.
        self._admitted(stored, cited)
        return stored.event

    def published(self, position: int, changes: Changes) -> None:
        """Drop queued changes that the log has published: the room itself shows them now."""
        self._current.published(position, changes)

    def current_nid(self, key: StateKey) -> int | None:
        """The numeric id of the current event of a type and state key, queued ones included."""
        return self._current.current_nid(key)

    def current(self, key: StateKey) -> StoredEvent | None:
        """The current event of a type and state key, queued ones included.

        Raises `NotInMemory` if it must be loaded.
        """
        return self._current.current(key)

    def membership(self, user_id: str) -> str | None:
        """The user's membership, including queued changes."""
        return self._current.membership(user_id)

    def _unchanged(self, draft: EventDraft) -> StoredEvent | None:
        """The current state event, if the draft has the same content and sender."""
        assert draft.state_key is not None
        current = self.current((draft.type, draft.state_key))
        if (
            current is not None
            and current.redaction is None
            and current.event.sender == draft.sender
            and current.event.content == draft.content
        ):
            return current
        return None

    def _admitted(
        self,
        stored: StoredEvent,
        cited: Iterable[int],
        effect: RedactionEffect = NO_EFFECT,
        *,
        rows: Sequence[Row] = (),
        is_first: bool = False,
    ) -> AdmittedEvent:
        """A local event to be admitted: it follows all extremities, and is then the only one."""
        changes, more_rows = self._builder.state_after(stored, cited, self._extremities.root)
        return AdmittedEvent(
            stored,
            ForwardExtremities((stored,), stored.state_after),
            changes,
            effect=effect,
            rows=[*rows, *more_rows] if more_rows else rows,
            is_after_gap=self._is_gap_open,
            is_first=is_first,
        )

    def _advance(self, admitted: AdmittedEvent, position: int) -> list[Row]:
        """Make an event part of the room as the writer sees it; returns the rows that store it."""
        rows = admission_rows(self._names, self.room, admitted, position)
        self._current.change(position, admitted.changes)
        self._extremities = admitted.extremities
        self._backward_extremities |= admitted.backward_extremities
        self._is_gap_open = admitted.is_after_gap and admitted.effect.is_pending
        return rows

    def _queue(self, admitted: AdmittedEvent, position: int, rows: list[Row]) -> Deferred[None]:
        stored, redacted = admitted.stored, admitted.effect.target
        self._events.add(stored)
        self.inbound.arrived(stored.event.event_id)
        if redacted is not None:
            rows.append(MARK_REDACTED.row(redacted.event_nid, stored.event_nid))
            rows += rows_of_redaction(redacted)
        if admitted.effect.waits_for is not None:
            rows += self.pending_redactions.add(
                admitted.effect.waits_for, stored, is_backfilled=False
            )
        return self.append_entry(admitted.log_entry(self.room, position), rows)
