"""Unread counts: how many events of a room notify a user, and are not read.

Nothing is stored for them but receipts, and nothing is done for members who do not ask: a message
in a room of ten thousand costs no more than in one of two. Who asks gets a `Tally`, which is kept,
and takes in what is new when it is asked for again; receipts and redactions reach it through the
log. Most questions are about one new event, which was judged before for somebody else, and are
answered at once.

Rules and ignored users count as they are now, for what is still unread too: who mutes a room is
rid of its count.

Spec: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from homeserver.push.loading import NotAtHand
from homeserver.push.members import Member, Members
from homeserver.push.mentions import Mentions
from homeserver.push.notices import Notices
from homeserver.push.tally import MAX_NAMED, WINDOW, Tally, UnreadCount
from homeserver.rooms.receipts import READ, READ_PRIVATE, Receipts
from homeserver.rooms.room import Room
from homeserver.rooms.room_facts import RoomEventAppended
from homeserver.rooms.room_receipts import ReceiptChanged
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.stored_event import StoredEvent
from homeserver.storage.database import Database
from homeserver.storage.events import events_between

MAX_TALLIES = 100_000  # in memory; about a kilobyte each


@dataclass(frozen=True, slots=True)
class _Kept:
    member: Member
    tally: Tally


@dataclass(frozen=True, slots=True)
class _Span:
    """The newest events of a room at one moment, up to `upto`, newest first.

    `named` are older ones, oldest first, that name the member.
    """

    upto: int
    joined_count: int
    events: Sequence[StoredEvent]
    named: Sequence[StoredEvent]


class UnreadCounts:
    """Answers how much is unread. `apply` is to be subscribed to the log, after the rooms."""

    def __init__(
        self,
        db: Database,
        rooms: Rooms,
        receipts: Receipts,
        members: Members,
        notices: Notices,
        mentions: Mentions,
    ) -> None:
        self._db = db
        self._events = rooms.stores.events
        self._receipts = receipts
        self._members = members
        self._notices = notices
        self._mentions = mentions
        self._rooms: OrderedDict[int, dict[str, _Kept]] = OrderedDict()
        self._tallies = 0

    def cached(self, room: Room, user_id: str) -> UnreadCount | None:
        """What is unread for a member of a room, if that can be told at once."""
        try:
            tally = self._caught_up(room, user_id)
        except NotAtHand:
            return None
        return None if tally is None else tally.count()

    async def counts(self, room: Room, user_id: str) -> UnreadCount:
        """What is unread for a member of a room."""
        return (await self.tally(room, user_id)).count()

    async def tally(self, room: Room, user_id: str) -> Tally:
        """The tally of a member, up to the room's newest event."""
        while True:
            try:
                tally = self._caught_up(room, user_id)
            except NotAtHand as missing:
                await missing.load()
                continue
            if tally is not None:
                return tally
            member = await self._members.load(room, user_id)
            tally = await self._build(room, member)
            if tally is not None:
                self._keep(room.number, _Kept(member, tally))
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
                kept = self._rooms.get(fact.room, {}).get(fact.user_id)
                if kept is not None:
                    _read(kept.tally, fact)
            elif isinstance(fact, RoomEventAppended) and fact.redacts is not None:
                position = fact.redacts.position or 0
                for kept in self._rooms.get(fact.room, {}).values():
                    kept.tally.forget(position)

    def _caught_up(self, room: Room, user_id: str) -> Tally | None:
        """The tally in memory with what is new taken in; `None` where it has to be made anew."""
        kept = self._rooms.get(room.number, {}).get(user_id)
        if kept is None or not self._members.is_current(room, kept.member):
            return None
        tally = kept.tally
        if tally.upto < room.last_position:
            events = room.events_after(tally.upto)
            if events is None:
                return None
            count = len(events)
            events.reverse()
            news = self._notices.among(room, kept.member, events, room.joined_count, tally)
            news.reverse()
            tally.take(room.last_position, count, news)
        return tally

    async def _build(self, room: Room, member: Member) -> Tally | None:
        """A new tally; `None` where the member has changed in the meantime."""
        receipts = await self._receipts.of_user(room, member.user_id)
        span = await self._span(room, member, _read_by(member, receipts, 0).floor)
        while True:
            receipts = await self._receipts.of_user(room, member.user_id)
            # From here on nothing waits, so that no receipt can get lost.
            if not self._members.is_current(room, member):
                return None
            tally = _read_by(member, receipts, span.upto)
            unread = [
                stored for stored in span.events if not tally.is_all_read(stored.position or 0)
            ]
            try:
                named = [
                    self._notices.notice(room, member, stored, None, tally) for stored in span.named
                ]
                news = self._notices.among(room, member, unread, span.joined_count, tally)
            except NotAtHand as missing:
                await missing.load()
                continue
            tally.take_older(notice for notice in named if notice is not None)
            tally.take(span.upto, len(unread), reversed(news))
            return tally

    async def _span(self, room: Room, member: Member, floor: int) -> _Span:
        """What is above a position; from the database where memory does not reach back."""
        upto, joined_count, start = room.last_position, room.joined_count, room.timeline_from
        events = list(reversed(room.timeline))
        named: list[StoredEvent] = []
        if start > floor:
            limit = WINDOW - len(events)
            rows = await self._db.run(events_between, room.number, floor, start, limit)
            events += await self._load(room, [number for _, number in rows])
            if len(rows) == limit:
                before = rows[-1][0] - 1
                numbers = await self._mentions.of(
                    room.number, member.user_id, floor, before, MAX_NAMED
                )
                named = await self._load(room, numbers[::-1])
        return _Span(upto, joined_count, events, named)

    async def _load(self, room: Room, numbers: list[int]) -> list[StoredEvent]:
        return await self._events.load_in_order(room.version, numbers)

    def _keep(self, room: int, kept: _Kept) -> None:
        tallies = self._rooms.setdefault(room, {})
        self._rooms.move_to_end(room)
        self._tallies += kept.member.user_id not in tallies
        tallies[kept.member.user_id] = kept
        while self._tallies > MAX_TALLIES and len(self._rooms) > 1:
            self._tallies -= len(self._rooms.popitem(last=False)[1])


def _read_by(member: Member, receipts: Iterable[ReceiptChanged], upto: int) -> Tally:
    """An empty tally of a member who has read so far."""
    tally = Tally(upto, member.since)
    for receipt in receipts:
        _read(tally, receipt)
    return tally


def _read(tally: Tally, receipt: ReceiptChanged) -> None:
    """Take in a receipt. One for an event whose place is not known here reads nothing."""
    if receipt.receipt_type in (READ, READ_PRIVATE) and receipt.event_position is not None:
        tally.read(receipt.event_position, receipt.thread_id)
