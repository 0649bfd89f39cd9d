"""Unread counts: the number of events of a room that notify a user and are not read.

Counts are computed on demand; only receipts are stored. So a message in a room of ten thousand
costs no more than in one of two. A member's `UnreadCounter` is cached and advanced when it is read
again; receipts and redactions reach it through the log. Most reads follow one new event, which was
evaluated before for another member, and do not wait: members with the same rules and the same
unread events share one `UnreadSnapshot`, and one `_SharedStep` advances all of them. The sender of
an event, mentioned users and users who have read further are advanced separately.

Push rules and ignored users apply as they are now, also to events that were sent before: muting a
room clears its count.

Spec: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from homeserver.concurrency.cooperative import TimeSlice
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.push_rules.evaluation import CompiledRules
from homeserver.push.members import Member, Members
from homeserver.push.mentions import Mentions
from homeserver.push.push_actions import PushActions
from homeserver.push.thread_subscription_changed import ThreadSubscriptionChanged
from homeserver.push.unread_counter import (
    MAX_MENTIONS,
    WINDOW,
    SnapshotPool,
    UnreadCount,
    UnreadCounter,
    UnreadSnapshot,
)
from homeserver.rooms.ephemeral.receipts import READ, READ_PRIVATE, Receipts
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import EventAppended, EventsPurged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_receipts import Receipt, ReceiptsChanged
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.events import Stretch, events_of_stretches

MAX_COUNTERS = 100_000  # in memory; about 1 KB each
MAX_READ = 2_000  # events of several rooms that are read together


class _CachedCounter(msgspec.Struct, frozen=True):
    member: Member
    counter: UnreadCounter


class _SharedStep(msgspec.Struct, frozen=True):
    """The snapshot after the newest events, for members with one snapshot but the `concerned`."""

    unread: UnreadSnapshot
    concerned: frozenset[str]


_StepKey = tuple[UnreadSnapshot, CompiledRules, frozenset[str]]  # with the ignored users


class _RoomCounters:
    """The counters of one room's members, by user id.

    `number` is the ordinal of the event at `upto`, the last one that was counted for any member;
    all counters use the same ordinals.
    """

    __slots__ = ("by_user", "number", "snapshots", "steps", "upto")

    def __init__(self, upto: int) -> None:
        self.upto = upto
        self.number = 0
        self.snapshots = SnapshotPool()
        self.steps: dict[_StepKey, _SharedStep | None] = {}
        self.by_user: dict[str, _CachedCounter] = {}

    def catch_up(self, room: Room) -> bool:
        """Number the room's new events; false where memory does not reach back to the last one."""
        if self.upto < room.last_position:
            events = room.events_after(self.upto)
            if events is None:
                return False
            self.number += len(events)
            self.upto = room.last_position
            self.steps.clear()
            self.snapshots.clear_steps()
        return True


class _EventWindow(msgspec.Struct, frozen=True):
    """The newest events of a room, for one member: those in memory, up to the `number`th at `upto`.

    `newest` are newest first. The member may not have read events above the position `floor`, of
    which those up to `start` are not in memory.
    """

    room: Room
    member: Member
    counters: _RoomCounters
    upto: int
    number: int
    joined_count: int
    newest: Sequence[StoredEvent]
    floor: int
    start: int

    def stretch(self) -> Stretch | None:
        """The part that is to be read, if there is any."""
        if self.start <= self.floor:
            return None
        return Stretch(self.room.room_nid, self.floor, self.start, WINDOW - len(self.newest))


class _UnreadEvents(msgspec.Struct, frozen=True):
    """The events of a window, newest first.

    `mentioned` are older ones, oldest first, that mention the member.
    """

    events: Sequence[StoredEvent]
    mentioned: Sequence[StoredEvent]


_OlderEvents = Mapping[Room, list[tuple[int, int]]]  # (position, event nid), newest first


class UnreadCounts:
    """Computes unread counts. `apply` is to be subscribed to the log, after the rooms."""

    def __init__(
        self,
        db: Database,
        rooms: RoomRegistry,
        receipts: Receipts,
        members: Members,
        push_actions: PushActions,
        mentions: Mentions,
    ) -> None:
        self._db = db
        self._registry = rooms
        self._receipts = receipts
        self._members = members
        self._push_actions = push_actions
        self._mentions = mentions
        self._rooms: LruCache[int, _RoomCounters] = LruCache(
            "unread_counts", MAX_COUNTERS, size_of=lambda _, counters: len(counters.by_user)
        )

    def cached(self, room: Room, user_id: str) -> UnreadCount | None:
        """The counts of a member of a room, if they can be computed from memory."""
        try:
            counter = self._advance(room, user_id)
        except NotInMemory:
            return None
        return None if counter is None else counter.count()

    async def counts(self, room: Room, user_id: str) -> UnreadCount:
        """The counts of a member of a room."""
        return (await self.counter(room, user_id)).count()

    async def counter(self, room: Room, user_id: str) -> UnreadCounter:
        """The counter of a member, advanced to the room's newest event."""
        while True:
            try:
                counter = self._advance(room, user_id)
            except NotInMemory as missing:
                await missing.load()
                continue
            if counter is not None:
                return counter
            window = await self._window(room, user_id)
            counter = await self._make(window, await self._older_events([window]))
            if counter is not None and counter.upto == room.last_position:
                return counter

    async def get_ready(self, rooms: Iterable[Room], user_id: str) -> None:
        """Have the counters of a user in several rooms in memory, read together."""
        missing = [room for room in rooms if self.cached(room, user_id) is None]
        windows = [await self._window(room, user_id) for room in missing]
        older = await self._older_events(windows)
        part: list[_EventWindow] = []
        for window in windows:
            part.append(window)
            if sum(len(older[each.room]) for each in part) >= MAX_READ:
                await self._make_all(part, older)
                part = []
        await self._make_all(part, older)

    async def _make_all(self, windows: Sequence[_EventWindow], older: _OlderEvents) -> None:
        await self._registry.get_events_ready(
            {window.room: [nid for _, nid in older[window.room]] for window in windows}
        )
        time_slice = TimeSlice(self._registry.local_server.clock)
        for window in windows:
            if time_slice.is_over:
                await time_slice.next()
            await self._make(window, older)

    async def _make(self, window: _EventWindow, older: _OlderEvents) -> UnreadCounter | None:
        """A new counter, which is kept; `None` where the window was overtaken."""
        counter = await self._build(window, await self._unread_events(window, older[window.room]))
        room_nid = window.room.room_nid
        if counter is None or self._rooms.peek(room_nid) is not window.counters:
            return None
        window.counters.by_user[window.member.user_id] = _CachedCounter(window.member, counter)
        self._rooms.put(room_nid, window.counters)
        return counter

    async def was_read_after(self, room: Room, user_id: str, position: int) -> bool:
        """Whether a receipt of the user's changed above a position of the log."""
        return await self._receipts.have_moved(room, user_id, position)

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries."""
        for entry in entries:
            if isinstance(entry, ReceiptsChanged):
                self._receipts_changed(entry)
            elif isinstance(entry, ThreadSubscriptionChanged):
                self._subscription_changed(entry)
            elif isinstance(entry, EventsPurged):
                # What was purged may have been unread: all members are counted again.
                self._rooms.pop(entry.room)
            elif isinstance(entry, EventAppended) and entry.redacts is not None:
                counters = self._rooms.peek(entry.room_nid)
                if counters is not None:
                    for cached in counters.by_user.values():
                        cached.counter.forget(entry.redacts.position or 0)

    def _receipts_changed(self, entry: ReceiptsChanged) -> None:
        counters = self._rooms.peek(entry.room)
        if counters is not None:
            for receipt in entry.receipts:
                cached = counters.by_user.get(receipt.user_id)
                if cached is not None:
                    _apply_receipt(cached.counter, receipt)

    def _subscription_changed(self, change: ThreadSubscriptionChanged) -> None:
        """Have a member's events counted again: rules apply as they are now."""
        counters = self._rooms.peek(change.room)
        if counters is not None:
            counters.by_user.pop(change.user_id, None)
            counters.steps.clear()  # they say who was subscribed

    def _advance(self, room: Room, user_id: str) -> UnreadCounter | None:
        """The cached counter, advanced over new events; `None` where it has to be built again."""
        counters = self._rooms.peek(room.room_nid)
        cached = None if counters is None else counters.by_user.get(user_id)
        if counters is None or cached is None or not self._members.is_current(room, cached.member):
            self._rooms.misses += 1
            return None
        self._rooms.hits += 1
        counter = cached.counter
        if counter.upto < room.last_position:
            if not counters.catch_up(room):
                return None
            step = self._step(room, counters, cached)
            if step is None or user_id in step.concerned or counter.highest_read > counter.upto:
                return self._advance_alone(room, cached)
            counter.unread = step.unread
        return counter

    def _step(
        self, room: Room, counters: _RoomCounters, cached: _CachedCounter
    ) -> _SharedStep | None:
        """The step of all members like the cached one; `None` where each advances separately."""
        unread, member = cached.counter.unread, cached.member
        key = unread, member.rules, member.ignored
        if key not in counters.steps:
            counters.steps[key] = self._compute_step(room, counters, cached)
        return counters.steps[key]

    def _compute_step(
        self, room: Room, counters: _RoomCounters, cached: _CachedCounter
    ) -> _SharedStep | None:
        unread = cached.counter.unread
        events = room.events_after(unread.upto)
        if events is None:
            return None
        common = self._push_actions.common(room, cached.member, reversed(events), room.joined_count)
        if common is None:
            return None
        after = unread.after(room.last_position, len(events), reversed(common.actions))
        return _SharedStep(counters.snapshots.intern(after), common.concerned)

    def _advance_alone(self, room: Room, cached: _CachedCounter) -> UnreadCounter | None:
        counter = cached.counter
        events = room.events_after(counter.upto)
        if events is None:
            return None
        events.reverse()
        items = self._push_actions.among(room, cached.member, events, room.joined_count, counter)
        items.reverse()
        counter.advance(room.last_position, len(events), items)
        return counter

    async def _build(self, window: _EventWindow, found: _UnreadEvents) -> UnreadCounter | None:
        """A new counter; `None` where the member has changed in the meantime."""
        room, member = window.room, window.member
        while True:
            receipts = await self._receipts.of_user(room, member.user_id)
            # From here on nothing waits, so that no receipt is missed.
            if not self._members.is_current(room, member):
                return None
            floor = _read_up_to(member, receipts).floor
            unread = [stored for stored in found.events if (stored.position or 0) > floor]
            counter = _read_up_to(member, receipts, window, len(unread))
            try:
                mentions = [
                    self._push_actions.action(room, member, stored, None, counter)
                    for stored in found.mentioned
                ]
                items = self._push_actions.among(room, member, unread, window.joined_count, counter)
            except NotInMemory as missing:
                await missing.load()
                continue
            counter.add_older(action for action in mentions if action is not None)
            counter.advance(window.upto, len(unread), reversed(items))
            return counter

    async def _window(self, room: Room, user_id: str) -> _EventWindow:
        """The events that a user may not have read, of which nothing is read yet."""
        member = await self._members.load(room, user_id)
        receipts = await self._receipts.of_user(room, user_id)
        counters = self._rooms.peek(room.room_nid)
        if counters is None or not counters.catch_up(room):
            # Drop the counters of the room, and begin again.
            counters = self._rooms.put(room.room_nid, _RoomCounters(room.last_position))
        return _EventWindow(
            room,
            member,
            counters,
            room.last_position,
            counters.number,
            room.joined_count,
            room.timeline[::-1],
            _read_up_to(member, receipts).floor,
            room.timeline_from,
        )

    async def _older_events(self, windows: Iterable[_EventWindow]) -> _OlderEvents:
        """The places of what the windows have beyond the events in memory, read together."""
        found: _OlderEvents = {window.room: [] for window in windows}
        stretches = [each for window in windows if (each := window.stretch()) is not None]
        if stretches:
            by_nid = {room.room_nid: places for room, places in found.items()}
            for nid, position, event_nid in await self._db.run(events_of_stretches, stretches):
                by_nid[nid].append((position, event_nid))
        return found

    async def _unread_events(
        self, window: _EventWindow, older: Sequence[tuple[int, int]]
    ) -> _UnreadEvents:
        room, stretch = window.room, window.stretch()
        events = [*window.newest, *await self._load(room, [nid for _, nid in older])]
        mentioned: list[StoredEvent] = []
        if stretch is not None and len(older) == stretch.limit:
            before = older[-1][0] - 1
            numbers = await self._mentions.of(
                room.room_nid, window.member.user_id, window.floor, before, MAX_MENTIONS
            )
            mentioned = await self._load(room, numbers[::-1])
        return _UnreadEvents(events, mentioned)

    async def _load(self, room: Room, event_nids: list[int]) -> list[StoredEvent]:
        return await self._registry.load_events_in_order(room, event_nids)


def _read_up_to(
    member: Member,
    receipts: Iterable[Receipt],
    window: _EventWindow | None = None,
    events: int = 0,
) -> UnreadCounter:
    """An empty counter with a member's receipts, before the newest `events` of a window."""
    if window is None:
        counter = UnreadCounter(0, member.since)
    else:
        number, snapshots = window.number - events, window.counters.snapshots
        counter = UnreadCounter(window.upto, member.since, ordinal=number, snapshots=snapshots)
    for receipt in receipts:
        _apply_receipt(counter, receipt)
    return counter


def _apply_receipt(counter: UnreadCounter, receipt: Receipt) -> None:
    """Apply a receipt. A receipt for an event of unknown position has no effect."""
    if receipt.receipt_type in (READ, READ_PRIVATE) and receipt.event_position is not None:
        counter.read(receipt.event_position, receipt.thread_id)
