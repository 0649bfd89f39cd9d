"""The room writer: the only way to change a room.

It holds what the next event needs: the forward extremities, the root of the current state, and what
has been queued but not yet published. A message in an active room is therefore authorised, signed
and queued without yielding to the reactor and without a database read, and nothing can come between
the check and the write. If something is not in memory the attempt ends with `EventNotInMemory`, the
missing data is loaded, and the attempt is repeated from the start, against the state as it is then.

Every event that this server makes is checked here as other servers will check it
(`local_event_checks.py`). Events of other servers are checked in
`homeserver/rooms/inbound/receiver.py`, and enter by `admit`.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred, DeferredLock

from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.authorization.auth_types import auth_types_for
from homeserver.protocol.errors import MatrixError, Unavailable
from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import ClientTransaction, EventDraft
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.relation_rows import rows_of_redaction
from homeserver.rooms.events.stored_event import MAX_TOPOLOGICAL_DEPTH, StoredEvent
from homeserver.rooms.room.admission import (
    NO_EFFECT,
    AdmittedEvent,
    RedactionEffect,
    effect_of_draft,
)
from homeserver.rooms.room.changes import NO_CHANGES, Changes, StateChanged, StateKey
from homeserver.rooms.room.current_events import CurrentEvents
from homeserver.rooms.room.event_rows import admission_rows, auth_rows, check_names, nid_of
from homeserver.rooms.room.extremities import ForwardExtremities
from homeserver.rooms.room.local_event_checks import (
    SERVER_ACL,
    check_draft,
    check_own_event,
    check_target,
)
from homeserver.rooms.room.pending_redactions import PendingRedactions
from homeserver.rooms.room.policy_server_port import DraftSender, PolicyServerPort
from homeserver.rooms.room.redactions import check_redaction
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_storage import EventNotInMemory, RoomStorage
from homeserver.rooms.state.store import StateNodesNotInMemory
from homeserver.storage.database.batch import Row
from homeserver.storage.rooms.events import MARK_REDACTED

CREATE: StateKey = ("m.room.create", "")


class RoomWriter:
    """Writes the events of one room; there is only one writer for a room at any time."""

    def __init__(
        self, room: Room, head: ForwardExtremities, origin: LocalServer, stores: RoomStorage
    ) -> None:
        self.room = room
        self.extremities = head
        self.backward_extremities = dict(
            room.backward_extremities
        )  # those that are queued included
        self.is_gap_open = head.begins_with_gap(
            room.backward_extremities
        )  # the next event is after a gap
        # Target -> numbers of redactions, each with whether it is of the past.
        self.early_redactions = PendingRedactions(room.room_nid)
        self.absent: set[str] = set()  # events that were asked for lately, and are not here
        self.receiving = DeferredLock()  # what comes from outside is judged one after the other
        self.policy: PolicyServerPort | None = None
        self.branch_sender: DraftSender | None = None
        self.is_partial = room.partial is not None  # what is taken in will be judged again
        self.users = 0  # requests that hold on to this writer, which must therefore not be dropped
        self._queued = 0  # position of the last event that was handed to the log
        self.origin, self._log = origin, stores.log
        self._names = stores.names
        self._states = stores.states
        self._events = stores.events
        self.stores = stores
        self._pending: dict[StateKey, tuple[int, StoredEvent | None]] = {}
        self.auth = AuthState(CurrentEvents(self))

    @property
    def is_busy(self) -> bool:
        """Whether something has not been published yet, or a request uses this writer."""
        return self.users > 0 or bool(self._pending) or self._queued > self.room.last_position

    async def send(
        self, draft: EventDraft, transaction: ClientTransaction | None = None
    ) -> StoredEvent:
        """Append one event; returns when it is durable and published.

        A state event that would change nothing is not sent: the current one is returned.

        Raises `Forbidden` if the auth rules do not allow it, `TooLarge` and `BadJson` if it is not
        a valid event, `Unavailable` while the database is unavailable.
        """
        while True:
            try:
                if draft.state_key is not None and (unchanged := self._unchanged(draft)):
                    return unchanged
                if self.policy is not None and self.policy.applies_to(self, draft):
                    sent = await self.policy.send(self, draft, transaction)
                    if sent is not None:
                        return sent
                if self.extremities.is_wide and self.branch_sender is not None:
                    sent = await self.branch_sender.send(self, draft, transaction)
                    if sent is not None:
                        return sent
                (stored,), done = self.append([draft], transaction)
                break
            except (EventNotInMemory, StateNodesNotInMemory) as missing:
                await self.fetch(missing)
        await done
        return stored

    async def fetch(self, missing: EventNotInMemory | StateNodesNotInMemory) -> None:
        """Load what an attempt lacked into memory; then it can be repeated."""
        await self.stores.fetch(self.room.version, missing)

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

        Raises `EventNotInMemory`, `StateNodesNotInMemory`, what `send` raises, and `Unavailable` in
        a room that has more branches than one event joins.
        """
        self._log.check_open()
        if self.extremities.is_wide:
            raise Unavailable("The room has too many branches for this")
        saved = self.extremities, dict(self._pending), self.auth, self.is_gap_open
        try:
            built = list(self.prepare(drafts, transaction, create=create, more_rows=more_rows))
        except BaseException:
            self.extremities, self._pending, self.auth, self.is_gap_open = saved
            raise
        done: Deferred[None] | None = None
        for arrival, rows in built:
            done = self._queue(arrival, arrival.stored.event_nid, rows)
        assert done is not None
        return [arrival.stored for arrival, _ in built], done

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
            check_own_event(create.event, AuthState({}), self.origin.server_name)
            first = self._admitted(create, (), rows=more_rows, is_first=True)
            yield first, self._advance(first, create.event_nid)
        for draft in drafts:
            try:
                stored, cited = self._build(draft, transaction)
            except MatrixError:
                if draft.is_optional:
                    continue
                raise
            effect = effect_of_draft(self.room.version, draft, self._target(draft))
            if effect.is_pending:
                stored.position = None
            arrival = self._admitted(stored, cited, effect)
            yield arrival, self._advance(arrival, stored.event_nid)

    def admit(self, *arrivals: AdmittedEvent) -> Deferred[None]:
        """Queue events of any server that were checked against the present extremities, all or
        none.

        Fires when they are durable. Raises `EventNotInMemory`, and `Unavailable` while the database
        is unavailable; then nothing has changed.
        """
        self._log.check_open()
        built = []
        try:
            for arrival in arrivals:
                position = self._log.next_position()
                is_after_gap = not arrival.is_first and (arrival.is_after_gap or self.is_gap_open)
                arrival = replace(arrival, is_after_gap=is_after_gap)
                arrival.stored.position = None if arrival.effect.is_pending else position
                built.append((arrival, position, self._advance(arrival, position)))
        except BaseException:
            for arrival in arrivals:
                arrival.stored.position = None
            raise
        return [self._queue(*each) for each in built][-1]

    def append_entry(self, fact: StateChanged, rows: Sequence[Row]) -> Deferred[None]:
        """Queue an entry of the log that the extremities include already."""
        self._queued = fact.position
        return self._log.append(fact, rows)

    def change_state(
        self, fact: StateChanged, head: ForwardExtremities, rows: Sequence[Row]
    ) -> Deferred[None]:
        """Queue a change of the state that no event makes, and its rows. Raises `Unavailable`."""
        self._log.check_open()
        self._pending.update({key: (fact.position, now) for key, now in fact.changes.items()})
        self.extremities, self.auth = head, AuthState(CurrentEvents(self))
        self._queued = fact.position
        return self._log.append(fact, rows)

    def preview(
        self,
        draft: EventDraft,
        signers: Collection[str] = (),
        follows: Sequence[StoredEvent] | None = None,
    ) -> Event:
        """The event that a draft would become now; nothing is changed. Raises what `append` raises.

        It becomes that event if it is appended before the reactor runs again and has its own
        timestamp. `signers` are servers that will sign it before it is sent. An event that
        `follows` only some branches is to be received instead.
        """
        self._log.check_open()
        stored, cited = self._build(draft, None, signers, follows)
        # What the draft would lack when it is appended, it lacks now.
        self._admitted(stored, cited)
        return stored.event

    def published(self, fact_position: int, changes: Changes) -> None:
        """Drop pending changes that the room shows now."""
        for key in changes:
            pending = self._pending.get(key)
            if pending is not None and pending[0] == fact_position:
                del self._pending[key]

    def current_number(self, key: StateKey) -> int | None:
        """The nid of the current event of a type and state key, including queued ones."""
        pending = self._pending.get(key)
        if pending is None:
            return self.room.number_of(key)
        return None if pending[1] is None else pending[1].event_nid

    def current(self, key: StateKey) -> StoredEvent | None:
        """The current event of a type and state key.

        Raises `EventNotInMemory` if it must be loaded.
        """
        pending = self._pending.get(key)
        if pending is not None:
            return pending[1]
        number = self.room.number_of(key)
        if number is None:
            return None
        stored = self._events.cached(number)
        if stored is None:
            raise EventNotInMemory(events=[number])
        return stored

    def membership(self, user_id: str) -> str | None:
        """The user's membership, including queued changes."""
        pending = self._pending.get(("m.room.member", user_id))
        if pending is not None:
            membership: str | None = None
            if pending[1] is not None:
                membership = pending[1].event.content.get("membership")
            return membership
        return self.room.members.get(user_id)

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

    def _build(
        self,
        draft: EventDraft,
        transaction: ClientTransaction | None,
        signers: Collection[str] = (),
        follows: Sequence[StoredEvent] | None = None,
    ) -> tuple[StoredEvent, list[int]]:
        """The event that a draft becomes, and the nids of its auth events."""
        check_draft(draft, self.origin.server_name)
        auth_events = self._auth_events(draft)
        check_names(self._names, draft.type, draft.sender, draft.state_key)
        follows = self.extremities.events if follows is None else follows
        event = self._event(draft, follows, [cited.event for cited in auth_events])
        check_own_event(event, self.auth, self.origin.server_name, signers)
        if (target := self._target(draft)) is not None:
            check_target(target, self.current_number(SERVER_ACL))
            check_redaction(event, target.event, self.auth)
        replaced = None
        if draft.state_key is not None:
            replaced = self.current((draft.type, draft.state_key))
        position = self._log.next_position()
        stored = StoredEvent(
            event,
            position,
            position,
            self.extremities.root,
            self.extremities.root,
            replaces=None if replaced is None else replaced.event_nid,
            replaced=None if replaced is None else replaced.event,
            topological_depth=min(self.extremities.topological_depth + 1, MAX_TOPOLOGICAL_DEPTH),
            transaction=transaction,
        )
        return stored, [cited.event_nid for cited in auth_events]

    def _event(
        self, draft: EventDraft, follows: Sequence[StoredEvent], auth_events: Sequence[Event]
    ) -> Event:
        return self.origin.sign_event(
            self.room.version,
            draft,
            room_id=self.room.room_id,
            prev_events=[stored.event for stored in follows],
            auth_events=auth_events,
            depth=1 + max((stored.event.depth for stored in follows), default=0),
        )

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
        event, changes = stored.event, NO_CHANGES
        if event.state_key is not None:
            entry = (self._nid(event.type), self._nid(event.state_key))
            stored.state_after, nodes = self._states.apply(
                self.extremities.root, {entry: stored.event_nid}
            )
            changes = {(event.type, event.state_key): stored}
            rows = [*rows, *nodes, *auth_rows(stored, cited)]
        head = ForwardExtremities((stored,), stored.state_after)
        return AdmittedEvent(
            stored,
            head,
            changes,
            effect=effect,
            rows=rows,
            is_after_gap=self.is_gap_open,
            is_first=is_first,
        )

    def _advance(self, arrival: AdmittedEvent, position: int) -> list[Row]:
        """Make an event part of the room for all that follows; returns the rows that store it."""
        rows = admission_rows(self._names, self.room, arrival, position)
        self._pending.update({key: (position, now) for key, now in arrival.changes.items()})
        if arrival.changes:
            self.auth = AuthState(CurrentEvents(self))
        self.extremities = arrival.extremities
        self.backward_extremities |= arrival.backward_extremities
        self.is_gap_open = arrival.is_after_gap and arrival.effect.is_pending
        return rows

    def _queue(self, arrival: AdmittedEvent, position: int, rows: list[Row]) -> Deferred[None]:
        stored, redacted = arrival.stored, arrival.effect.target
        self._events.add(stored)
        self.absent.discard(stored.event.event_id)
        if redacted is not None:
            rows.append(MARK_REDACTED.row(redacted.event_nid, stored.event_nid))
            rows += rows_of_redaction(redacted)
        if arrival.effect.waits_for is not None:
            rows += self.early_redactions.add(arrival.effect.waits_for, stored, is_past=False)
        return self.append_entry(arrival.fact(self.room, position), rows)

    def _target(self, draft: EventDraft) -> StoredEvent | None:
        """The target of a draft's redaction; it may have arrived only since the draft was made."""
        if draft.target is not None or draft.redacts is None:
            return draft.target
        return self._events.cached_id(self.room.room_id, draft.redacts)

    def _auth_events(self, draft: EventDraft) -> list[StoredEvent]:
        """The current events that authorise the draft, as the specification selects them."""
        keys = auth_types_for(
            self.room.version, draft.type, draft.sender, draft.state_key, draft.content
        )
        found: list[StoredEvent] = []
        missing: list[int] = []
        for key in keys:
            try:
                stored = self.current(key)
            except EventNotInMemory as lacking:
                missing.extend(lacking.events)
            else:
                if stored is not None:
                    found.append(stored)
        # Room version 12 leaves the create event out of the selection, but its rules read it.
        create = self.room.state.get(CREATE)
        if create is not None and self._events.cached(create) is None:
            missing.append(create)
        if missing:
            raise EventNotInMemory(events=missing)
        return found

    def _nid(self, name: str) -> int:
        return nid_of(self._names, name)
