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
from homeserver.streams.log import MAX_POSITION

BATCH_SIZE = 200  # events


class PartialStateRecheck:
    """Checks the events of a room again, while none are received there.

    `head` is the result so far, `head_rows` make its state durable. `withdrawn` are the nids of
    events that leave the timeline, `admitted` are those that enter it.
    """

    def __init__(
        self,
        writer: RoomWriter,
        stores: RoomStorage,
        event_checker: EventChecker,
        resolver: StateResolver,
        db: Database,
    ) -> None:
        self._writer = writer
        self._stores = stores
        self._event_checker = event_checker
        self._resolver = resolver
        self._branches = Branches(stores, resolver)
        self._db = db
        self._turn = TimeSlice(writer.local_server.clock)
        self._since = 0
        self._rows: list[Row] = []
        self._done: set[int] = set()
        self._affected: set[int] = set()  # those whose state follows from that before the join
        self._held: dict[int, list[StoredEvent]] = {}  # by the number of what they wait for
        self._waiting: set[int] = set()  # the numbers of those that wait
        self.head = ForwardExtremities((), EMPTY)
        self.head_rows: Sequence[Row] = ()
        self.withdrawn: set[int] = set()
        self.admitted: list[CheckedEvent] = []

    async def recheck_join(self, join: StoredEvent, whole: ResolvedState) -> bool:
        """Check the join with the full state before it; `False` if that does not allow it."""
        assert join.position is not None, "it is in the timeline"
        self._since = join.position
        with _restored_if_refused(join) as outcome:
            checked = await self._event_checker.check(self._writer, join, whole)
            outcome.is_good = join.status == ACCEPTED
        if not outcome.is_good:
            return False
        self._affected.add(join.event_nid)
        self._note(checked)
        self.head = ForwardExtremities((join,), join.state_after)
        # What was current in between is written again, where it is not the state after an event.
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
            events = await self._stores.events.load_in_order(room.version, numbers)
            await self._recheck_all(events)
            if len(rows) < BATCH_SIZE:
                break
            place = rows[-1][0]
        # What these wait for is nowhere: they are checked by what is there.
        rest = [stored for held in self._held.values() for stored in held]
        self._held.clear()
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
            is_old = (stored.position or 0) <= self._since
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
                if self._turn.is_over:
                    await self._turn.next()
        finally:
            # What others find in memory from now on must come to be in the database.
            done = self._flush()
        await done

    async def _recheck_when_due(self, stored: StoredEvent) -> None:
        """Check an event, and all that wait for it; or have it wait for its previous events."""
        due = [stored]
        while due:
            stored = due.pop()
            if stored.event_nid in self._done:
                continue
            found = await self._event_checker.find(self._writer, stored.event.prev_event_ids)
            prevs = [prev for prev in found.values() if not prev.status.is_outlier]
            first = next((prev for prev in prevs if self._comes_later(prev, stored)), None)
            if first is not None:
                self._held.setdefault(first.event_nid, []).append(stored)
                self._waiting.add(stored.event_nid)
                continue
            await self._recheck(stored, prevs)
            due += self._held.pop(stored.event_nid, ())
            self._waiting.difference_update(each.event_nid for each in due)

    def _comes_later(self, prev: StoredEvent, stored: StoredEvent) -> bool:
        if prev.event_nid in self._done:
            return False
        return prev.event_nid in self._waiting or _place(prev) > max(self._since, _place(stored))

    async def _recheck(self, stored: StoredEvent, prevs: Sequence[StoredEvent]) -> None:
        self._done.add(stored.event_nid)
        is_affected = any(prev.event_nid in self._affected for prev in prevs)
        is_past = (stored.position or 0) < 0
        if not is_affected and (is_past or _place(stored) <= self._since):
            return
        before = ResolvedState(stored.state_before)
        if is_affected:
            self._affected.add(stored.event_nid)
            roots = [prev.state_after for prev in prevs]
            if len(prevs) < len(set(stored.event.prev_event_ids)):
                # Another server told the state before what is missing.
                roots.append(stored.state_before)
            before = await self._resolver.resolve(self._writer.room, roots)
        was = stored.status
        with _restored_if_refused(stored) as outcome:
            checked = await self._event_checker.check(self._writer, stored, before)
            if stored.status == ACCEPTED and _is_not_recommended(was):
                stored.status = was
            elif stored.status == ACCEPTED and not is_past:
                await self._meet_head(checked)
            outcome.is_good = True
        self._note(checked)
        # An attempt that was broken off may have noted the status, but has moved nothing.
        is_accepted, is_shown = stored.status == ACCEPTED, stored.position is not None
        is_pending = checked.effect.is_pending and was == ACCEPTED
        if is_accepted and not is_shown and not is_pending:
            self.admitted.append(checked)
        elif is_shown and not is_accepted:
            self.withdrawn.add(stored.event_nid)

    async def _meet_head(self, checked: CheckedEvent) -> None:
        """Check an event by the room's state when it arrived, and make it a forward extremity."""
        stored, head = checked.stored, self.head
        if stored.state_before != head.root:
            state = await self._event_checker.auth_state(self._writer, stored.event, head.root)
            refusal = check_by_state(stored.event, state)
            if refusal is not None:
                stored.status = EventStatus(soft_failed=refusal)
                return
        extremities = head.followed_by(stored, checked.replaced_extremities)
        extremities, resolved = await self._branches.resolve(self._writer.room, extremities)
        self.head, self.head_rows = ForwardExtremities(extremities, resolved.root), resolved.rows
        if stored.position is not None and resolved.root != stored.state_after:
            room = self._writer.room.room_nid
            self._rows.append(CORRECT_CURRENT_STATE.row(room, stored.position, resolved.root, None))
            self._rows += resolved.rows

    def _note(self, checked: CheckedEvent) -> None:
        stored, status = checked.stored, checked.stored.status
        self._done.add(stored.event_nid)
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
        log, rows = self._stores.log, self._rows
        self._rows = []
        return log.append(EventsStored(log.next_position(), self._writer.room.room_nid, ()), rows)


class _Outcome:
    is_good = False


@contextmanager
def _restored_if_refused(stored: StoredEvent) -> Iterator[_Outcome]:
    """Restore an event unless the result is good: its new values would not be written.

    Its depth does not change in any case.
    """
    status, height, replaces, replaced = (
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
        stored.topological_depth = height
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
    return position if position > 0 else stored.event_nid
