"""The re-check of the events that a room received while its state was partial.

The events are checked again, from the join on, in the order in which they were received, with the
full state before the join: the state at each of them, whether its auth events and that state allow
it, and whether the room's state of that moment did (`PduReceiver`). The resulting forward
extremities are the room's from then on.

Results are written as they are found. The re-check may stop anywhere and be repeated, for it
depends on the events alone. `PartialStateCompletion` publishes the changes.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from twisted.internet.defer import Deferred

from homeserver.concurrency.cooperative import TimeSlice
from homeserver.protocol.authorization.receipt_checks import check_by_state
from homeserver.rooms.events.stored_event import ACCEPTED, EventStatus, StoredEvent
from homeserver.rooms.inbound.branches import Branches
from homeserver.rooms.inbound.event_checks import CheckedEvent, EventChecker
from homeserver.rooms.resolution.resolver import ResolvedState, StateResolver
from homeserver.rooms.room.changes import EventsStored
from homeserver.rooms.room.extremities import ForwardExtremities
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.event_graph import events_to_recheck
from homeserver.storage.rooms.events import (
    CORRECT_CURRENT_STATE,
    FORGET_CURRENT_STATES,
    UPDATE_CHECK_RESULT,
)
from homeserver.streams.positions import MAX_POSITION

BATCH_SIZE = 200  # events


class PartialStateRecheck:
    """Checks the events of a room again, while none are received there.

    `extremities` are the result so far, `extremities_rows` make its state durable. `removed` are
    the nids of events that leave the timeline, `admitted` the events that enter it.
    """

    def __init__(
        self,
        writer: RoomWriter,
        storage: RoomStorage,
        event_checker: EventChecker,
        resolver: StateResolver,
        db: Database,
    ) -> None:
        self._writer = writer
        self._storage = storage
        self._event_checker = event_checker
        self._resolver = resolver
        self._branches = Branches(storage, resolver)
        self._db = db
        self._time_slice = TimeSlice(writer.local_server.clock)
        self._since = 0
        self._rows: list[Row] = []
        self._changed: list[StoredEvent] = []  # the events that the rows are of
        self._done: set[int] = set()
        self._affected: set[int] = set()  # nids of events with the join among their ancestors
        self._waiting_for: dict[int, list[StoredEvent]] = {}  # by the nid of that event
        self._waiting: set[int] = set()  # the nids of all of these
        # For an event that is no forward extremity itself: the ids of those that it follows.
        self._extremities_before: dict[str, frozenset[str]] = {}
        self.extremities = ForwardExtremities((), EMPTY)
        self.extremities_rows: Sequence[Row] = ()
        self.removed: set[int] = set()
        self.admitted: list[CheckedEvent] = []

    async def recheck_join(self, join: StoredEvent, full_state: ResolvedState) -> bool:
        """Check the join with the full state before it; `False` if that does not allow it."""
        assert join.position is not None, "it is in the timeline"
        self._since = join.position
        with restored_if_refused(join) as outcome:
            checked = await self._event_checker.check(self._writer, join, full_state)
            outcome.is_good = join.status == ACCEPTED
        if not outcome.is_good:
            return False
        self._affected.add(join.event_nid)
        self._record_result(checked)
        self.extremities = ForwardExtremities((join,), join.state_after)
        # Current states since the join are written again, where they are not the state after an
        # event.
        room = self._writer.room.room_nid
        self._rows.append(FORGET_CURRENT_STATES.row(room, join.position, MAX_POSITION))
        await self._flush()
        return True

    async def recheck_rest(self) -> None:
        """Check all events since, and those that were not accepted before and may follow them."""
        room, place = self._writer.room, 0
        while True:
            rows = await self._db.run(
                events_to_recheck, room.room_nid, self._since, place, BATCH_SIZE
            )
            numbers = [number for _, number in rows if number not in self._done]
            events = await self._storage.events.load_in_order(room.version, numbers)
            await self._recheck_all(events)
            if len(rows) < BATCH_SIZE:
                break
            place = rows[-1][0]
        # The events that these wait for are not stored: they are checked without them.
        self._done.update(self._waiting_for.keys() - self._waiting)
        rest = [stored for held in self._waiting_for.values() for stored in held]
        self._waiting_for.clear()
        self._waiting.clear()
        await self._recheck_all(rest)

    async def catch_up(self) -> None:
        """Check the events that local users have sent in the meantime."""
        while tail := await self._tail():
            await self._recheck_all(tail)

    async def _tail(self) -> list[StoredEvent]:
        """The newest events of the room that were not checked again, the oldest first."""
        waiting = list(self._writer.extremities.events)
        found: dict[int, StoredEvent] = {}
        while waiting:
            stored = waiting.pop()
            # A local redaction without its target has no position, but others may follow it.
            is_old = stored.status.is_outlier or _place(stored) <= self._since
            if is_old or stored.event_nid in self._done or stored.event_nid in found:
                continue
            found[stored.event_nid] = stored
            prevs = await self._event_checker.find(self._writer, stored.event.prev_event_ids)
            waiting += prevs.values()
        return sorted(found.values(), key=_place)

    async def _recheck_all(self, events: Iterable[StoredEvent]) -> None:
        try:
            for stored in events:
                await self._recheck_when_due(stored)
                if self._time_slice.is_over:
                    await self._time_slice.next()
        finally:
            # Other requests find the results in memory from now on, so they must be stored.
            done = self._flush()
        await done

    async def _recheck_when_due(self, stored: StoredEvent) -> None:
        """Check an event, and all that wait for it; or have it wait for its previous events."""
        due = [stored]
        while due:
            stored = due.pop()
            self._waiting.discard(stored.event_nid)
            if stored.event_nid in self._done:
                continue
            found = await self._event_checker.find(self._writer, stored.event.prev_event_ids)
            prevs = [prev for prev in found.values() if not prev.status.is_outlier]
            first = next((prev for prev in prevs if self._comes_later(prev, stored)), None)
            if first is not None:
                self._waiting_for.setdefault(first.event_nid, []).append(stored)
                self._waiting.add(stored.event_nid)
                continue
            await self._recheck(stored, prevs)
            self._record_extremities_before(stored)
            due += self._waiting_for.pop(stored.event_nid, ())

    def _comes_later(self, prev: StoredEvent, stored: StoredEvent) -> bool:
        if prev.event_nid in self._done:
            return False
        return prev.event_nid in self._waiting or _place(prev) > max(self._since, _place(stored))

    async def _recheck(self, stored: StoredEvent, prevs: Sequence[StoredEvent]) -> None:
        self._done.add(stored.event_nid)
        is_affected = any(prev.event_nid in self._affected for prev in prevs)
        is_backfilled = (stored.position or 0) < 0
        if not is_affected and (is_backfilled or _place(stored) <= self._since):
            return
        before = ResolvedState(stored.state_before)
        if is_affected:
            self._affected.add(stored.event_nid)
            roots = [prev.state_after for prev in prevs]
            if len(prevs) < len(set(stored.event.prev_event_ids)):
                # For the missing ones, another server has reported the state before this event.
                roots.append(stored.state_before)
            before = await self._resolver.resolve(self._writer.room, roots)
        was = stored.status
        with restored_if_refused(stored) as outcome:
            checked = await self._event_checker.check(self._writer, stored, before)
            if stored.status == ACCEPTED and _is_not_recommended(was):
                stored.status = was
            elif stored.status == ACCEPTED and not is_backfilled:
                await self._add_to_extremities(stored)
            outcome.is_good = True
        self._record_result(checked)
        # An interrupted attempt may have stored the status, but has moved no event.
        is_accepted, is_shown = stored.status == ACCEPTED, stored.position is not None
        is_pending = checked.effect.is_pending and was == ACCEPTED
        if is_accepted and not is_shown and not is_pending:
            self.admitted.append(checked)
        elif is_shown and not is_accepted:
            self.removed.add(stored.event_nid)

    async def _add_to_extremities(self, stored: StoredEvent) -> None:
        """Check an event by the room's state when it was received; make it a forward extremity."""
        before = self.extremities
        if stored.state_before != before.root:
            state = await self._event_checker.auth_state(self._writer, stored.event, before.root)
            refusal = check_by_state(stored.event, state)
            if refusal is not None:
                stored.status = EventStatus(soft_failed=refusal)
                return
        events = before.followed_by(stored, self._replaced_by(stored))
        events, resolved = await self._branches.resolve(self._writer.room, events)
        self.extremities = ForwardExtremities(events, resolved.root)
        self.extremities_rows = resolved.rows
        if stored.position is not None and resolved.root != stored.state_after:
            room = self._writer.room.room_nid
            self._rows.append(CORRECT_CURRENT_STATE.row(room, stored.position, resolved.root, None))
            self._rows += resolved.rows

    def _replaced_by(self, stored: StoredEvent) -> frozenset[str]:
        """The ids of the events that are no forward extremities if this one is.

        They are its previous events, and the forward extremities before those that never were one:
        refused and backfilled events. `CheckedEvent` has the same by positions, but an event keeps
        its position, or has none, until the room has full state.
        """
        prev_ids = frozenset(stored.event.prev_event_ids)
        return prev_ids.union(*(self._extremities_before.get(each, ()) for each in prev_ids))

    def _record_extremities_before(self, stored: StoredEvent) -> None:
        """Record the forward extremities that an event follows, if it did not become one."""
        extremities = {each.event.event_id for each in self.extremities.events}
        event_id = stored.event.event_id
        if event_id not in extremities and (replaced := self._replaced_by(stored) & extremities):
            self._extremities_before[event_id] = replaced

    def _record_result(self, checked: CheckedEvent) -> None:
        stored, status = checked.stored, checked.stored.status
        self._done.add(stored.event_nid)
        self._changed.append(stored)
        self._rows += checked.rows
        self._rows.append(
            UPDATE_CHECK_RESULT.row(
                stored.event_nid,
                stored.state_before,
                None if stored.event.state_key is None else stored.state_after,
                stored.replaces,
                status.rejected,
                status.soft_failed,
            )
        )

    def _flush(self) -> Deferred[None]:
        log, rows, changed = self._storage.log, self._rows, self._changed
        self._rows, self._changed = [], []
        room_nid = self._writer.room.room_nid
        return log.append(EventsStored(log.next_position(), room_nid, changed), rows)


class _Outcome:
    is_good = False


@contextmanager
def restored_if_refused(stored: StoredEvent) -> Iterator[_Outcome]:
    """Restore an event unless the result is good: its new values would not be written.

    Its depth does not change in any case.
    """
    status, depth, replaces, replaced = (
        stored.status,
        stored.topological_depth,
        stored.replaces,
        stored.replaced,
    )
    states = stored.state_before, stored.state_after
    outcome = _Outcome()
    try:
        yield outcome
    finally:
        stored.topological_depth = depth
        if not outcome.is_good:
            stored.status, stored.replaces, stored.replaced = status, replaces, replaced
            stored.state_before, stored.state_after = states


def _is_not_recommended(status: EventStatus) -> bool:
    """Whether only a policy server did not recommend an event; it is not asked again."""
    refusal = status.soft_failed
    return refusal is not None and not refusal.startswith("rule ")


def _place(stored: StoredEvent) -> int:
    """The place of an event in the order of receipt."""
    position = stored.position or 0
    return position if position > 0 else stored.stored_at
