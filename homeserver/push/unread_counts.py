"""Unread counts: how many events of a room notify a user, and are not read.

Nothing is stored for them but receipts, and nothing is done for members who do not ask: a message
in a room of ten thousand costs no more than in one of two. Who asks gets a `UnreadCounter`, which
is kept, and takes in what is new when it is asked for again; receipts and redactions reach it
through the log. Most questions are about one new event, which was judged before for somebody else,
and are answered at once: members who have the same rules and for whom the same was unread before it
hold the same `UnreadSnapshot`, and move to the next one together, in one `Step`. The sender of an
event, those whom it names, and whoever has read ahead go on their own.

Rules and ignored users count as they are now, for what is still unread too: who mutes a room is
rid of its count.

Spec: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.push_rules.evaluation import CompiledRules
from homeserver.push.members import Member, Members
from homeserver.push.mentions import Mentions
from homeserver.push.push_actions import PushActions
from homeserver.push.unread_counter import (
    MAX_NAMED,
    WINDOW,
    SnapshotPool,
    UnreadCount,
    UnreadCounter,
    UnreadSnapshot,
)
from homeserver.rooms.ephemeral.receipts import READ, READ_PRIVATE, Receipts
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import EventAppended
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_receipts import ReceiptChanged
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.events import events_between

MAX_TALLIES = 100_000  # in memory; about a kilobyte each


@dataclass(frozen=True, slots=True)
class _Kept:
    member: Member
    counter: UnreadCounter


@dataclass(frozen=True, slots=True)
class _Step:
    """Where the room's newest events lead all who stood at the same place but those `concerned`."""

    unread: UnreadSnapshot
    concerned: frozenset[str]


_StepKey = tuple[UnreadSnapshot, CompiledRules, frozenset[str]]  # with the ignored users


class _RoomCounters:
    """The tallies of one room's members, by user id.

    `number` is that of the event at `upto`, the last one that was taken in for anybody; by it all
    of them count from the same beginning.
    """

    __slots__ = ("by_user", "number", "states", "steps", "upto")

    def __init__(self, upto: int) -> None:
        self.upto = upto
        self.number = 0
        self.states = SnapshotPool()
        self.steps: dict[_StepKey, _Step | None] = {}
        self.by_user: dict[str, _Kept] = {}

    def catch_up(self, room: Room) -> bool:
        """Count the room's new events; false where memory does not reach back to the last one."""
        if self.upto < room.last_position:
            events = room.events_after(self.upto)
            if events is None:
                return False
            self.number += len(events)
            self.upto = room.last_position
            self.steps.clear()
            self.states.forget_moves()
        return True


@dataclass(frozen=True, slots=True)
class _Span:
    """The newest events of a room at one moment, up to the `number`th at `upto`, newest first.

    `mentioned` are older ones, oldest first, that name the member.
    """

    counters: _RoomCounters
    upto: int
    number: int
    joined_count: int
    events: Sequence[StoredEvent]
    mentioned: Sequence[StoredEvent]


class UnreadCounts:
    """Answers how much is unread. `apply` is to be subscribed to the log, after the rooms."""

    def __init__(
        self,
        db: Database,
        rooms: RoomRegistry,
        receipts: Receipts,
        members: Members,
        notices: PushActions,
        mentions: Mentions,
    ) -> None:
        self._db = db
        self._events = rooms.stores.events
        self._receipts = receipts
        self._members = members
        self._push_actions = notices
        self._mentions = mentions
        self._rooms: LruCache[int, _RoomCounters] = LruCache(
            "unread_counts", MAX_TALLIES, size_of=lambda _, counters: len(counters.by_user)
        )

    def cached(self, room: Room, user_id: str) -> UnreadCount | None:
        """What is unread for a member of a room, if that can be told at once."""
        try:
            tally = self._caught_up(room, user_id)
        except NotInMemory:
            return None
        return None if tally is None else tally.count()

    async def counts(self, room: Room, user_id: str) -> UnreadCount:
        """What is unread for a member of a room."""
        return (await self.counter(room, user_id)).count()

    async def counter(self, room: Room, user_id: str) -> UnreadCounter:
        """The tally of a member, up to the room's newest event."""
        while True:
            try:
                tally = self._caught_up(room, user_id)
            except NotInMemory as missing:
                await missing.load()
                continue
            if tally is not None:
                return tally
            member = await self._members.load(room, user_id)
            span = await self._span(room, member)
            tally = await self._build(room, member, span)
            if tally is not None and self._rooms.peek(room.room_nid) is span.counters:
                span.counters.by_user[user_id] = _Kept(member, tally)
                self._rooms.put(room.room_nid, span.counters)
                if tally.upto == room.last_position:
                    return tally

    async def was_read_after(self, room: Room, user_id: str, position: int) -> bool:
        """Whether a receipt of the user's changed above a position of the log."""
        receipts = await self._receipts.of_user(room, user_id)
        return any(receipt.position > position for receipt in receipts)

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log."""
        for fact in facts:
            if isinstance(fact, ReceiptChanged):
                tallies = self._rooms.peek(fact.room)
                kept = None if tallies is None else tallies.by_user.get(fact.user_id)
                if kept is not None:
                    _read(kept.counter, fact)
            elif isinstance(fact, EventAppended) and fact.redacts is not None:
                tallies = self._rooms.peek(fact.room_nid)
                if tallies is not None:
                    for kept in tallies.by_user.values():
                        kept.counter.forget(fact.redacts.position or 0)

    def _caught_up(self, room: Room, user_id: str) -> UnreadCounter | None:
        """The tally in memory with what is new taken in; `None` where it has to be made anew."""
        tallies = self._rooms.peek(room.room_nid)
        kept = None if tallies is None else tallies.by_user.get(user_id)
        if tallies is None or kept is None or not self._members.is_current(room, kept.member):
            self._rooms.misses += 1
            return None
        self._rooms.hits += 1
        tally = kept.counter
        if tally.upto < room.last_position:
            if not tallies.catch_up(room):
                return None
            step = self._step(room, tallies, kept)
            if step is None or user_id in step.concerned or tally.reach > tally.upto:
                return self._take_alone(room, kept)
            tally.unread = step.unread
        return tally

    def _step(self, room: Room, tallies: _RoomCounters, kept: _Kept) -> _Step | None:
        """What the newest events are to all who stand where a member does; `None`: see for each."""
        unread, member = kept.counter.unread, kept.member
        key = unread, member.rules, member.ignored
        if key not in tallies.steps:
            tallies.steps[key] = self._find_step(room, tallies, kept)
        return tallies.steps[key]

    def _find_step(self, room: Room, tallies: _RoomCounters, kept: _Kept) -> _Step | None:
        unread = kept.counter.unread
        events = room.events_after(unread.upto)
        if events is None:
            return None
        common = self._push_actions.common(room, kept.member, reversed(events), room.joined_count)
        if common is None:
            return None
        after = unread.after(room.last_position, len(events), reversed(common.notices))
        return _Step(tallies.states.intern(after), common.concerned)

    def _take_alone(self, room: Room, kept: _Kept) -> UnreadCounter | None:
        tally = kept.counter
        events = room.events_after(tally.upto)
        if events is None:
            return None
        events.reverse()
        news = self._push_actions.among(room, kept.member, events, room.joined_count, tally)
        news.reverse()
        tally.advance(room.last_position, len(events), news)
        return tally

    async def _build(self, room: Room, member: Member, span: _Span) -> UnreadCounter | None:
        """A new tally; `None` where the member has changed in the meantime."""
        while True:
            receipts = await self._receipts.of_user(room, member.user_id)
            # From here on nothing waits, so that no receipt can get lost.
            if not self._members.is_current(room, member):
                return None
            floor = _read_by(member, receipts).floor
            unread = [stored for stored in span.events if (stored.position or 0) > floor]
            tally = _read_by(member, receipts, span, len(unread))
            try:
                named = [
                    self._push_actions.action(room, member, stored, None, tally)
                    for stored in span.mentioned
                ]
                news = self._push_actions.among(room, member, unread, span.joined_count, tally)
            except NotInMemory as missing:
                await missing.load()
                continue
            tally.take_older(notice for notice in named if notice is not None)
            tally.advance(span.upto, len(unread), reversed(news))
            return tally

    async def _span(self, room: Room, member: Member) -> _Span:
        """What a member has not read; from the database where memory does not reach back."""
        receipts = await self._receipts.of_user(room, member.user_id)
        floor = _read_by(member, receipts).floor
        tallies = self._rooms.peek(room.room_nid)
        if tallies is None or not tallies.catch_up(room):
            # Begin to count anew.
            tallies = self._rooms.put(room.room_nid, _RoomCounters(room.last_position))
        number = tallies.number
        upto, joined_count, start = room.last_position, room.joined_count, room.timeline_from
        events = list(reversed(room.timeline))
        named: list[StoredEvent] = []
        if start > floor:
            limit = WINDOW - len(events)
            rows = await self._db.run(events_between, room.room_nid, floor, start, limit)
            events += await self._load(room, [number for _, number in rows])
            if len(rows) == limit:
                before = rows[-1][0] - 1
                numbers = await self._mentions.of(
                    room.room_nid, member.user_id, floor, before, MAX_NAMED
                )
                named = await self._load(room, numbers[::-1])
        return _Span(tallies, upto, number, joined_count, events, named)

    async def _load(self, room: Room, numbers: list[int]) -> list[StoredEvent]:
        return await self._events.load_in_order(room.version, numbers)


def _read_by(
    member: Member, receipts: Iterable[ReceiptChanged], span: _Span | None = None, events: int = 0
) -> UnreadCounter:
    """An empty tally of a member who has read so far, before the newest `events` of a span."""
    if span is None:
        tally = UnreadCounter(0, member.since)
    else:
        number, states = span.number - events, span.counters.states
        tally = UnreadCounter(span.upto, member.since, number=number, states=states)
    for receipt in receipts:
        _read(tally, receipt)
    return tally


def _read(tally: UnreadCounter, receipt: ReceiptChanged) -> None:
    """Take in a receipt. One for an event whose place is not known here reads nothing."""
    if receipt.receipt_type in (READ, READ_PRIVATE) and receipt.event_position is not None:
        tally.read(receipt.event_position, receipt.thread_id)
