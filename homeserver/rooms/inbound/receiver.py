"""Receiving events: what becomes of an event of another server.

The caller has checked format, signatures and hashes, and got hold of what the event cites. Here the
event is judged in the order of the specification: by its auth events, by the state before it, by
the current state, by the room's policy server. An accepted event becomes a forward extremity, and
the states of all extremities are resolved to the room's new current state. One that is rejected or
soft-failed is kept and marked: others may cite it, but no client sees it, and no event of ours
follows it.

What does not depend on the room's head is computed first and may wait for the database; the head
may move meanwhile. The last step, which does depend on it, is made in one turn of the reactor.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from twisted.internet.defer import Deferred

from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.concurrency.thread_pools import ThreadPool
from homeserver.protocol.authorization.receipt_checks import check_by_state
from homeserver.protocol.errors import Forbidden
from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import ClientTransaction, EventDraft
from homeserver.rooms.events.relation_rows import rows_of_redaction
from homeserver.rooms.events.stored_event import (
    ACCEPTED,
    MAX_TOPOLOGICAL_DEPTH,
    EventStatus,
    StoredEvent,
)
from homeserver.rooms.inbound.branches import Branches, check_accepted
from homeserver.rooms.inbound.event_checks import CheckedEvent, EventChecker, EventsMissing
from homeserver.rooms.inbound.outliers import Outliers
from homeserver.rooms.resolution.auth_index import parts
from homeserver.rooms.resolution.resolver import ResolvedState, StateResolver
from homeserver.rooms.room.admission import AdmittedEvent
from homeserver.rooms.room.changes import NO_CHANGES, Changes, EventsStored, StateKey
from homeserver.rooms.room.draft_senders import PolicyServerPort
from homeserver.rooms.room.event_rows import event_rows, gap_rows, names_of, placing_rows
from homeserver.rooms.room.extremities import MAX_EXTREMITIES, ForwardExtremities
from homeserver.rooms.room.preview import build_preview
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.batch import Row
from homeserver.storage.rooms.events import MARK_REDACTED
from homeserver.storage.rooms.graph_edges import DELETE_BACKWARD_EXTREMITY

LOOKUP_BATCH_SIZE = 2_000  # event ids

DUMMY_EVENT = "org.matrix.dummy_event"
"""The type of an event that says nothing but joins branches; clients that exist hide it."""


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """What became of an event, and when that is durable; `None` if it was known already."""

    stored: StoredEvent
    done: Deferred[None] | None = None


@dataclass(frozen=True, slots=True)
class _Way:
    """How an event comes, as in `PduReceiver.receive`."""

    is_remote_join: bool
    is_past: bool
    should_send: bool
    not_recommended: str | None = None  # why, by the room's policy server
    may_merge: bool = True  # branches, if there are too many


class PduReceiver:
    """Receives events into rooms, by their writers."""

    def __init__(
        self, stores: RoomStorage, resolver: StateResolver, policy_servers: PolicyServerPort
    ) -> None:
        self._stores = stores
        self.resolver = resolver
        self.event_checker = EventChecker(stores, resolver)
        self._policy_servers = policy_servers
        self._branches = Branches(stores, resolver)
        self._outliers = Outliers(stores, self.event_checker, self._tell)

    @property
    def threads(self) -> ThreadPool:
        """For computations that take long."""
        return self._stores.states.threads

    async def receive(
        self,
        writer: RoomWriter,
        event: Event,
        *,
        state_before: ResolvedState | None = None,
        is_remote_join: bool = False,
        is_past: bool = False,
        should_send: bool = False,
        transaction: ClientTransaction | None = None,
    ) -> ReceivedEvent:
        """Judge an event and take it into its room.

        `state_before` is the state before it, for an event whose previous events cannot be had.
        `is_remote_join` is the event by which this server comes into the room: nothing that we knew
        of the room before counts. `is_past` is one from before what is known, which no sync shows.
        `is_local` is one that this server has to tell the others of; `transaction` made it here.

        Raises `EventsMissing`, and `Unavailable` while the database is away. Everything else that
        may be wrong with the event is told by the `status` of the result.
        """
        await writer.inbound.lock.acquire()
        try:
            known = (await self.event_checker.find(writer, [event.event_id])).get(event.event_id)
            if known is not None and not known.status.is_outlier:
                return ReceivedEvent(known)
            stored = known or _new(event, self._stores.log.next_position(), transaction)
            self._stores.events.introduce(stored)
            writer.inbound.arrived(event.event_id)
            try:
                judged = await self.event_checker.check(
                    writer, stored, state_before, is_provisional=writer.inbound.is_partial
                )
                refusal = None
                if not is_past and not is_remote_join:
                    refusal = await self._not_recommended(writer, judged)
                way = _Way(is_remote_join, is_past, should_send, refusal)
                return ReceivedEvent(stored, await self._settle(writer, judged, way))
            except BaseException:
                self._withdraw(stored, was_outlier=known is not None)
                raise
        finally:
            writer.inbound.lock.release()

    async def receive_own(
        self, writer: RoomWriter, event: Event, transaction: ClientTransaction | None = None
    ) -> StoredEvent:
        """Receive an event that a user here made; gives it when durable. Raises `Forbidden`."""
        received = await self.receive(writer, event, should_send=True, transaction=transaction)
        if received.done is not None:
            await received.done
        return check_accepted(received.stored, "The room changed while this was sent")

    async def look_up(self, writer: RoomWriter, events: Iterable[Event]) -> None:
        """Prepare for events that are about to be received: what is known is asked only once."""
        await writer.inbound.lock.acquire()
        try:
            await self.event_checker.look_up(writer, events)
        finally:
            writer.inbound.lock.release()

    async def outliers(
        self, writer: RoomWriter, events: Iterable[Event]
    ) -> tuple[list[StoredEvent], Deferred[None] | None]:
        """Keep events that others cite, whose place in the graph is not known.

        What they cite stands before them or is known; each is judged by that alone. Raises
        `EventsMissing`. The Deferred fires when they are durable, if any was new. Of a large number
        some are kept at a time, and others have their turn in between.
        """
        await writer.inbound.lock.acquire()
        try:
            return await self._outliers.keep(writer, events)
        finally:
            writer.inbound.lock.release()

    async def find_known(
        self, writer: RoomWriter, event_ids: Iterable[str]
    ) -> dict[str, StoredEvent]:
        """Those of the events that are here, in whatever standing."""
        return await self.event_checker.find(writer, event_ids)

    async def known_among(self, writer: RoomWriter, event_ids: Iterable[str]) -> list[str]:
        """Those of the event ids whose events are here, in whatever standing."""
        room, events = writer.room, self._stores.events
        here: list[str] = []
        for part in parts(event_ids, LOOKUP_BATCH_SIZE):
            here += await events.numbers(room.room_nid, room.room_id, part)
        return here

    async def state_of(
        self, writer: RoomWriter, event_ids: Collection[str], then: str | None = None
    ) -> ResolvedState:
        """The state that consists of these events, with the rows that make it durable.

        With `then` it is the state after this event in that state, if the event is known. Rejected
        events, and those that are no state, are no part of it. Raises `EventsMissing`.
        """
        found = await self.event_checker.find(writer, event_ids)
        if missing := set(event_ids).difference(found):
            raise EventsMissing(auth=missing)
        names = await self._stores.names.nids(
            {name for stored in found.values() for name in names_of(stored.event)}
        )
        entries = {
            (names[stored.event.type], names[stored.event.state_key]): stored.event_nid
            for stored in found.values()
            if stored.event.state_key is not None and stored.status.rejected is None
        }
        after = {} if then is None else await self.event_checker.find(writer, [then])
        for stored in after.values():
            event = stored.event
            if event.state_key is not None and stored.status.rejected is None:
                names = await self._stores.names.nids(names_of(event))
                entries[names[event.type], names[event.state_key]] = stored.event_nid
        return ResolvedState(*await self._stores.states.change(EMPTY, entries))

    async def state_before(
        self, writer: RoomWriter, event: Event, fetched: Mapping[str, ResolvedState]
    ) -> ResolvedState:
        """The state before an event, given those after its previous events that are not here."""
        prevs = await self.event_checker.find(writer, event.prev_event_ids)
        roots = [prev.state_after for prev in prevs.values() if not prev.status.is_outlier]
        roots += [state.root for state in fetched.values()]
        resolved = await self.resolver.resolve(writer.room, roots or [EMPTY])
        rows = [row for state in fetched.values() for row in state.rows]
        return ResolvedState(resolved.root, [*rows, *resolved.rows])

    async def _not_recommended(self, writer: RoomWriter, judged: CheckedEvent) -> str | None:
        """Why the room's policy server does not recommend an event that is new to the room."""
        stored = judged.stored
        is_old = (
            stored.status.rejected is not None
            or stored.event.event_id in writer.backward_extremities
        )
        if is_old:
            return None
        stored.event, refusal = await self._policy_servers.check(writer, stored.event)
        return refusal

    async def _settle(self, writer: RoomWriter, judged: CheckedEvent, way: _Way) -> Deferred[None]:
        """Do with an event what the judgement says."""
        stored = judged.stored
        if way.is_past or stored.event.event_id in writer.backward_extremities:
            done = self._fill(writer, judged)
        elif stored.status.rejected is not None or stored.status.soft_failed is not None:
            done = self._keep(writer, judged)
        else:
            done = await self._enter(writer, judged, way)
        if judged.early is not None:
            return self.event_checker.redactions.release(writer, stored, judged.early) or done
        return done

    def _withdraw(self, stored: StoredEvent, *, was_outlier: bool) -> None:
        """Forget what was made of an event that could not be taken in."""
        if was_outlier:
            stored.status = EventStatus(is_outlier=True)
            stored.position = stored.replaces = stored.replaced = None
            stored.state_before = stored.state_after = EMPTY
        else:
            self._stores.events.disown(stored)

    async def _enter(self, writer: RoomWriter, judged: CheckedEvent, way: _Way) -> Deferred[None]:
        """Let an event into the timeline; or keep it aside, if the current state refuses it."""
        stored = judged.stored
        if way.not_recommended is not None:
            stored.status = EventStatus(soft_failed=way.not_recommended)
            return self._keep(writer, judged)
        while True:
            head = writer.extremities
            if way.is_remote_join:
                stored.topological_depth = min(
                    max(stored.topological_depth, head.topological_depth + 1), MAX_TOPOLOGICAL_DEPTH
                )
                extremities: tuple[StoredEvent, ...] = (stored,)
            else:
                extremities = head.followed_by(stored, judged.replaced_extremities)
            if len(extremities) > MAX_EXTREMITIES and way.may_merge and await self._merge(writer):
                continue
            arrival = await self._admitted(writer, head, extremities, judged)
            is_after_gap = bool(judged.missing) if way.is_remote_join else judged.is_after_gap
            arrival = replace(arrival, should_send=way.should_send, is_after_gap=is_after_gap)
            try:
                if writer.extremities is not head:
                    continue
                if not way.is_remote_join and stored.state_before != head.root:
                    refusal = check_by_state(stored.event, judged.among(writer.auth))
                    if refusal is not None:
                        stored.status = EventStatus(soft_failed=refusal)
                        return self._keep(writer, judged)
                return writer.admit(arrival)
            except NotInMemory as missing:
                await missing.load()

    async def _admitted(
        self,
        writer: RoomWriter,
        head: ForwardExtremities,
        extremities: tuple[StoredEvent, ...],
        judged: CheckedEvent,
    ) -> AdmittedEvent:
        """What an event makes of the room."""
        room, stored, event = writer.room, judged.stored, judged.stored.event
        extremities, resolved = await self._branches.resolve(room, extremities)
        is_plain = stored.state_before == head.root and resolved.root == stored.state_after
        changes: Changes = NO_CHANGES
        former: dict[StateKey, StoredEvent] = {}
        if not is_plain:
            changes = await self._stores.changes_between(room.version, head.root, resolved.root)
            lost = [key for key, current in changes.items() if current is None]
            former = await self._stores.state_at(room.version, head.root, lost)
        elif event.state_key is not None:
            changes = {(event.type, event.state_key): stored}
        return AdmittedEvent(
            stored,
            ForwardExtremities(extremities, resolved.root),
            changes,
            former,
            is_fork=not is_plain,
            is_last=len(extremities) == 1
            and not judged.missing
            and stored.topological_depth > head.topological_depth,
            effect=judged.effect,
            rows=[*judged.rows, *resolved.rows],
            was_outlier=judged.was_outlier,
            backward_extremities=judged.gaps,
            is_first=not head.events,
        )

    async def _merge(self, writer: RoomWriter) -> bool:
        """Join all branches by an event of a user of ours; `False` where nobody may send one."""
        is_ours = writer.local_server.is_local
        while True:
            try:
                # If any of them may, the most powerful may.
                level = writer.auth.power_levels.of
                ours = filter(is_ours, writer.room.joined_members())
                strongest = max(ours, key=level, default=None)
                if strongest is None:
                    return False
                draft = EventDraft(DUMMY_EVENT, strongest, {})
                if self._policy_servers.applies_to(writer, draft):
                    # Nobody would recommend it in time.
                    return False
                if writer.extremities.is_wide:
                    return await self._join_some(writer, await build_preview(writer, draft))
                writer.append([draft])
                return True
            except NotInMemory as missing:
                await missing.load()
            except Forbidden:
                return False

    async def _join_some(self, writer: RoomWriter, event: Event) -> bool:
        """Take in an event of ours that joins some of the branches; `False` if it is refused."""
        stored = _new(event, self._stores.log.next_position(), None)
        self._stores.events.introduce(stored)
        try:
            judged = await self.event_checker.check(writer, stored, None)
            if stored.status == ACCEPTED:
                await self._enter(writer, judged, _Way(False, False, True, may_merge=False))
                return stored.status == ACCEPTED
        except BaseException:
            self._withdraw(stored, was_outlier=False)
            raise
        self._withdraw(stored, was_outlier=False)
        return False

    def _keep(self, writer: RoomWriter, judged: CheckedEvent) -> Deferred[None]:
        """Store a refused event, which changes nothing."""
        stored = judged.stored
        to_rows = placing_rows if judged.was_outlier else event_rows
        rows = to_rows(self._stores.names, writer.room.room_nid, stored)
        return self._tell(writer, [stored], [*rows, *judged.rows])

    def _fill(self, writer: RoomWriter, judged: CheckedEvent) -> Deferred[None]:
        """Store an event of the past: where it was missing, the gap is now before it."""
        self._stores.log.check_open()
        stored, room, effect = judged.stored, writer.room, judged.effect
        event_id = stored.event.event_id
        gap = writer.fill_gap(event_id, judged.gaps)
        # It stands below what follows it, however deep it says that it is.
        ceiling = writer.extremities.topological_depth if gap is None else gap - 1
        stored.topological_depth = max(1, min(stored.topological_depth, ceiling))
        if stored.status == ACCEPTED and not effect.is_pending:
            stored.position = -stored.event_nid
        to_rows = placing_rows if judged.was_outlier else event_rows
        rows = to_rows(self._stores.names, room.room_nid, stored)
        rows += [*judged.rows, *gap_rows(room.room_nid, judged.gaps)]
        if effect.target is not None:
            rows += [MARK_REDACTED.row(effect.target.event_nid, stored.event_nid)]
            rows += rows_of_redaction(effect.target)
        if effect.waits_for is not None:
            rows += writer.pending_redactions.add(effect.waits_for, stored, is_past=True)
        if gap is not None:
            rows.append(DELETE_BACKWARD_EXTREMITY.row(room.room_nid, event_id))
        return self._tell(writer, [stored], rows, judged.gaps, effect.target)

    def _tell(
        self,
        writer: RoomWriter,
        events: Sequence[StoredEvent],
        rows: Sequence[Row],
        gaps: Mapping[str, int] | None = None,
        redacts: StoredEvent | None = None,
    ) -> Deferred[None]:
        log = self._stores.log
        log.check_open()
        for stored in events:
            self._stores.events.add(stored)
        fact = EventsStored(log.next_position(), writer.room.room_nid, events, gaps or {}, redacts)
        return log.append(fact, rows)


def _new(event: Event, number: int, transaction: ClientTransaction | None) -> StoredEvent:
    return StoredEvent(event, number, None, EMPTY, EMPTY, transaction=transaction)
