"""The PDU receiver: accepts, soft-fails or rejects the events of other servers.

The caller has checked format, signatures and hashes, and fetched what the event refers to. Here the
event is checked in the order of the specification: by its auth events, by the state before it, by
the current state, by the room's policy server. An accepted event becomes a forward extremity, and
the states of all extremities are resolved to the room's new current state. A rejected or
soft-failed event is stored and marked: others may refer to it, but no client sees it, and no local
event follows it.

What does not depend on the room's forward extremities is computed first and may wait for the
database; the extremities may change meanwhile. The last step, which does depend on them, is made
without yielding to the reactor.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

from collections.abc import Collection, Iterable, Mapping

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred

from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.concurrency.thread_pools import ThreadPool
from homeserver.protocol.authorization.receipt_checks import check_by_state
from homeserver.protocol.errors import Forbidden
from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import ClientTransaction, EventDraft
from homeserver.rooms.events.stored_event import (
    ACCEPTED,
    MAX_TOPOLOGICAL_DEPTH,
    EventStatus,
    StoredEvent,
)
from homeserver.rooms.inbound.branches import Branches, check_accepted
from homeserver.rooms.inbound.event_checks import CheckedEvent, EventChecker, EventsMissing
from homeserver.rooms.inbound.outliers import Outliers
from homeserver.rooms.inbound.received_event import ReceivedEvent, Reception
from homeserver.rooms.inbound.recheck import restored_if_refused
from homeserver.rooms.inbound.unshown_events import UnshownEvents
from homeserver.rooms.resolution.auth_index import parts
from homeserver.rooms.resolution.resolver import ResolvedState, StateResolver
from homeserver.rooms.room.admission import AdmittedEvent
from homeserver.rooms.room.changes import NO_CHANGES, Changes, StateKey
from homeserver.rooms.room.draft_senders import PolicyServerPort
from homeserver.rooms.room.event_rows import (
    names_of,
)
from homeserver.rooms.room.extremities import MAX_EXTREMITIES, ForwardExtremities
from homeserver.rooms.room.preview import build_preview
from homeserver.rooms.room.room_storage import RoomStorage, unplaced_event
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.state.node_codec import EMPTY

LOOKUP_BATCH_SIZE = 2_000  # event ids

DUMMY_EVENT = "org.matrix.dummy_event"
"""The type of an empty event that joins branches; existing clients hide it."""


class PduReceiver:
    """Receives events into rooms, through their writers."""

    def __init__(
        self, storage: RoomStorage, resolver: StateResolver, policy_servers: PolicyServerPort
    ) -> None:
        self._storage = storage
        self.resolver = resolver
        self.event_checker = EventChecker(storage, resolver)
        self._policy_servers = policy_servers
        self._branches = Branches(storage, resolver)
        self._unshown = UnshownEvents(storage)
        self._outliers = Outliers(storage, self.event_checker, self._unshown.log_stored)

    @property
    def threads(self) -> ThreadPool:
        """The pool for long computations."""
        return self._storage.states.threads

    async def receive(
        self,
        writer: RoomWriter,
        event: Event,
        *,
        state_before: ResolvedState | None = None,
        is_remote_join: bool = False,
        is_backfilled: bool = False,
        should_send: bool = False,
        transaction: ClientTransaction | None = None,
    ) -> ReceivedEvent:
        """Check an event and store it in its room.

        `state_before` is the state before it, for an event whose previous events are unavailable.
        `is_remote_join` is the event by which this server joins the room: what was known of the
        room before does not count. `is_backfilled` is a backfilled event, which no sync shows.
        `should_send` is one that this server has to send to the others; `transaction` made it here.

        Raises `EventsMissing`, and `Unavailable` while the database is unavailable. All other
        faults of the event are in the `status` of the result.
        """
        await writer.inbound.lock.acquire()
        try:
            known = (await self.event_checker.find(writer, [event.event_id])).get(event.event_id)
            if known is not None and not known.status.is_outlier:
                return ReceivedEvent(known)
            stored = known or unplaced_event(self._storage.log, event, transaction=transaction)
            self._storage.events.introduce(stored)
            writer.inbound.arrived(event.event_id)
            try:
                is_provisional = writer.inbound.partial_join is not None
                checked = await self.event_checker.check(
                    writer, stored, state_before, is_provisional=is_provisional
                )
                refusal = None
                if not is_backfilled and not is_remote_join:
                    refusal = await self._not_recommended(writer, checked)
                reception = Reception(is_remote_join, is_backfilled, should_send, refusal)
                return ReceivedEvent(stored, await self._store(writer, checked, reception))
            except BaseException:
                self._discard(stored, was_outlier=known is not None)
                raise
        finally:
            writer.inbound.lock.release()

    async def accept_after_all(self, writer: RoomWriter, stored: StoredEvent) -> None:
        """Check a soft-failed event by the current state again, and accept it if that allows it.

        Returns when it is durable. Raises `Unavailable` while the database is unavailable.
        """
        await writer.inbound.lock.acquire()
        done: Deferred[None] | None = None
        try:
            if writer.inbound.partial_join is None and await self._is_allowed(writer, stored):
                with restored_if_refused(stored) as outcome:
                    depth, before = stored.topological_depth, ResolvedState(stored.state_before)
                    checked = await self.event_checker.check(writer, stored, before)
                    stored.topological_depth = depth
                    # It is stored, but has no place in the timeline yet.
                    checked = replace(checked, was_outlier=True)
                    done = await self._store(writer, checked, Reception(False, False, False))
                    outcome.is_good = True
        finally:
            writer.inbound.lock.release()
        if done is not None:
            await done

    async def _is_allowed(self, writer: RoomWriter, stored: StoredEvent) -> bool:
        """Whether the current state allows an event that it did not allow before."""
        while True:
            try:
                return check_by_state(stored.event, writer.auth) is None
            except NotInMemory as missing:
                await missing.load()

    async def receive_own(
        self, writer: RoomWriter, event: Event, transaction: ClientTransaction | None = None
    ) -> StoredEvent:
        """Receive an event that a local user made; returns it when durable. Raises `Forbidden`."""
        received = await self.receive(writer, event, should_send=True, transaction=transaction)
        if received.done is not None:
            await received.done
        return check_accepted(received.stored, "The room changed while this was sent")

    async def look_up(self, writer: RoomWriter, events: Iterable[Event]) -> None:
        """Look up what a list of events refers to, once for all of them."""
        await writer.inbound.lock.acquire()
        try:
            await self.event_checker.look_up(writer, events)
        finally:
            writer.inbound.lock.release()

    async def outliers(
        self, writer: RoomWriter, events: Iterable[Event]
    ) -> tuple[list[StoredEvent], Deferred[None] | None]:
        """Store events that others refer to, whose place in the graph is not known.

        Their auth events come before them or are known; each is checked by those alone. Raises
        `EventsMissing`. The Deferred fires when they are durable, if any was new. A large number is
        stored in time slices.
        """
        await writer.inbound.lock.acquire()
        try:
            return await self._outliers.store(writer, events)
        finally:
            writer.inbound.lock.release()

    async def find_known(
        self, writer: RoomWriter, event_ids: Iterable[str]
    ) -> dict[str, StoredEvent]:
        """Those of the events that are stored, with any status."""
        return await self.event_checker.find(writer, event_ids)

    async def known_among(self, writer: RoomWriter, event_ids: Iterable[str]) -> list[str]:
        """The ids of those events that are stored, with any status."""
        room, events = writer.room, self._storage.events
        here: list[str] = []
        for part in parts(event_ids, LOOKUP_BATCH_SIZE):
            here += await events.event_nids(room.room_nid, room.room_id, part)
        return here

    async def state_of(
        self, writer: RoomWriter, event_ids: Collection[str], then: str | None = None
    ) -> ResolvedState:
        """The state that consists of these events, with the rows that make it durable.

        With `then` it is the state after this event in that state, if the event is known. Rejected
        events, and those that are not state, are no part of it. Raises `EventsMissing`.
        """
        found = await self.event_checker.find(writer, event_ids)
        if missing := set(event_ids).difference(found):
            raise EventsMissing(auth=missing)
        names = await self._storage.names.nids(
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
                names = await self._storage.names.nids(names_of(event))
                entries[names[event.type], names[event.state_key]] = stored.event_nid
        return ResolvedState(*await self._storage.states.change(EMPTY, entries))

    async def state_before(
        self, writer: RoomWriter, event: Event, fetched: Mapping[str, ResolvedState]
    ) -> ResolvedState:
        """The state before an event, given those after its missing previous events."""
        prevs = await self.event_checker.find(writer, event.prev_event_ids)
        roots = [prev.state_after for prev in prevs.values() if not prev.status.is_outlier]
        roots += [state.root for state in fetched.values()]
        resolved = await self.resolver.resolve(writer.room, roots or [EMPTY])
        rows = [row for state in fetched.values() for row in state.rows]
        return ResolvedState(resolved.root, [*rows, *resolved.rows])

    async def _not_recommended(self, writer: RoomWriter, checked: CheckedEvent) -> str | None:
        """The policy server's reason against an event that is new to the room, if it has one."""
        stored, known_missing = checked.stored, writer.backward_extremities
        if stored.status.rejected is not None or stored.event.event_id in known_missing:
            return None
        stored.event, refusal = await self._policy_servers.check(writer, stored.event)
        return refusal

    async def _store(
        self, writer: RoomWriter, checked: CheckedEvent, reception: Reception
    ) -> Deferred[None]:
        """Store an event according to the results of its checks."""
        stored = checked.stored
        if reception.is_backfilled or stored.event.event_id in writer.backward_extremities:
            done = self._unshown.store_backfilled(writer, checked)
        elif stored.status.rejected is not None or stored.status.soft_failed is not None:
            done = self._unshown.store_unaccepted(writer, checked)
        else:
            done = await self._admit(writer, checked, reception)
        if (pending := checked.pending_redactions) is not None:
            return self.event_checker.redactions.release(writer, stored, pending) or done
        return done

    def _discard(self, stored: StoredEvent, *, was_outlier: bool) -> None:
        """Remove an event that could not be stored from memory."""
        if was_outlier:
            stored.status = EventStatus(is_outlier=True)
            stored.position = stored.replaces = stored.replaced = None
            stored.state_before = stored.state_after = EMPTY
        else:
            self._storage.events.disown(stored)

    async def _admit(
        self, writer: RoomWriter, checked: CheckedEvent, reception: Reception
    ) -> Deferred[None]:
        """Add an event to the timeline; or soft-fail it, if the current state does not allow it."""
        stored = checked.stored
        if reception.not_recommended is not None:
            stored.status = EventStatus(soft_failed=reception.not_recommended)
            return self._unshown.store_unaccepted(writer, checked)
        is_join, should_send = reception.is_remote_join, reception.should_send
        is_after_gap = bool(checked.missing) if is_join else checked.is_after_gap
        while True:
            before = writer.extremities
            if is_join:
                depth = max(stored.topological_depth, before.topological_depth + 1)
                stored.topological_depth = min(depth, MAX_TOPOLOGICAL_DEPTH)
                extremities: tuple[StoredEvent, ...] = (stored,)
            else:
                extremities = before.followed_by(stored, checked.replaced_extremities)
            is_wide = len(extremities) > MAX_EXTREMITIES
            if is_wide and reception.may_merge and await self._merge(writer):
                continue
            admitted = await self._admitted(writer, before, extremities, checked)
            admitted = msgspec.structs.replace(
                admitted, should_send=should_send, is_after_gap=is_after_gap
            )
            try:
                if writer.extremities is not before:
                    continue
                if not is_join and stored.state_before != before.root:
                    refusal = check_by_state(stored.event, checked.among(writer.auth))
                    if refusal is not None:
                        stored.status = EventStatus(soft_failed=refusal)
                        return self._unshown.store_unaccepted(writer, checked)
                return writer.admit(admitted)
            except NotInMemory as missing:
                await missing.load()

    async def _admitted(
        self,
        writer: RoomWriter,
        before: ForwardExtremities,
        extremities: tuple[StoredEvent, ...],
        checked: CheckedEvent,
    ) -> AdmittedEvent:
        """The effects of an event on the room."""
        room, stored, event = writer.room, checked.stored, checked.stored.event
        extremities, resolved = await self._branches.resolve(room, extremities)
        is_plain = stored.state_before == before.root and resolved.root == stored.state_after
        changes: Changes = NO_CHANGES
        former: dict[StateKey, StoredEvent] = {}
        if not is_plain:
            changes = await self._storage.changes_between(room.version, before.root, resolved.root)
            lost = [key for key, current in changes.items() if current is None]
            former = await self._storage.state_at(room.version, before.root, lost)
        elif event.state_key is not None:
            changes = {(event.type, event.state_key): stored}
        return AdmittedEvent(
            stored,
            ForwardExtremities(extremities, resolved.root),
            changes,
            former,
            is_fork=not is_plain,
            is_last=len(extremities) == 1
            and not checked.missing
            and stored.topological_depth > before.topological_depth,
            effect=checked.effect,
            rows=[*checked.rows, *resolved.rows],
            was_outlier=checked.was_outlier,
            backward_extremities=checked.backward_extremities,
            is_first=not before.events,
        )

    async def _merge(self, writer: RoomWriter) -> bool:
        """Join all branches by a local event; `False` if no local user may send one."""
        is_local = writer.local_server.is_local
        while True:
            try:
                # If any local member may send it, the one with the highest power level may.
                level = writer.auth.power_levels.of
                local_members = filter(is_local, writer.room.joined_members())
                strongest = max(local_members, key=level, default=None)
                if strongest is None:
                    return False
                draft = EventDraft(DUMMY_EVENT, strongest, {})
                if self._policy_servers.applies_to(writer, draft):
                    # The policy server cannot be waited for here.
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
        """Receive a local event that joins some of the branches; `False` if it is not allowed."""
        stored = unplaced_event(self._storage.log, event)
        self._storage.events.introduce(stored)
        try:
            checked = await self.event_checker.check(writer, stored, None)
            if stored.status == ACCEPTED:
                await self._admit(writer, checked, Reception(False, False, True, may_merge=False))
                return stored.status == ACCEPTED
        except BaseException:
            self._discard(stored, was_outlier=False)
            raise
        self._discard(stored, was_outlier=False)
        return False
