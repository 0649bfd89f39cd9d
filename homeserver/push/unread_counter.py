"""A tally: the unread events of one user in one room, as far as it has been counted.

It is a value in memory that takes in events and receipts, and does not wait. What counts is what
notifies the user among the newest `WINDOW` events of the room, and before those what names them; so
the result depends on the room and the receipts alone, never on when it was counted.

A receipt without a thread reads the whole room, one with a thread that thread alone. The user's own
event reads the part of the timeline that it was sent to.

What is unread, `UnreadSnapshot`, never changes: a tally moves on from one to the next. Members for
whom the same is unread hold the same object, and what becomes of it by an event or a receipt is
worked out once for all of them (`SnapshotPool`).

Spec: https://spec.matrix.org/v1.19/client-server-api/#marking-notifications-as-read
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from homeserver.rooms.room.room_receipts import MAIN

WINDOW: Final = 300
MAX_NAMED: Final = 100  # events before the window that name the user
MAX_MOVES: Final = 1_000  # that are remembered of one room


class UnreadCount(msgspec.Struct, frozen=True):
    """Unread notifications of a room, and how many of them are highlighted.

    `threads` has what lies in threads, (notifications, highlights) by the id of the root; it is
    part of the whole.
    """

    notification: int = 0
    highlight: int = 0
    threads: dict[str, tuple[int, int]] = {}

    @property
    def main(self) -> tuple[int, int]:
        """Notifications and highlights of the main timeline."""
        in_threads = self.threads.values()
        return (
            self.notification - sum(notification for notification, _ in in_threads),
            self.highlight - sum(highlight for _, highlight in in_threads),
        )


class PushAction(msgspec.Struct, frozen=True):
    """An event that notifies the user. `age` is the number of events since, in what is taken in.

    `mentioned` says that it mentions the user, or everybody.
    """

    position: int
    thread: str | None
    highlight: bool
    mentioned: bool
    age: int = 0


class OwnEvent(msgspec.Struct, frozen=True):
    """An event of the user's own."""

    position: int
    thread: str | None


_Numbered = tuple[int, PushAction]  # a notice with the number of its event in the room
_Sums = Mapping[str | None, tuple[int, int]]


class UnreadSnapshot:
    """What is unread after the event at `upto`, which has the number `ordinal` in the room.

    It does not change.
    """

    __slots__ = (
        "__weakref__",
        "_before",
        "_count",
        "_sums",
        "_within",
        "digest",
        "ordinal",
        "upto",
    )

    def __init__(
        self,
        upto: int,
        number: int = 0,
        within: Sequence[_Numbered] = (),
        before: Sequence[PushAction] = (),
        sums: _Sums | None = None,
        digest: int = 0,
    ) -> None:
        self.upto = upto
        self.ordinal = number
        self.digest = digest  # of what is unread, independent of its order
        self._within = within  # the window's, oldest first
        self._before = before
        self._sums: _Sums = {} if sums is None else sums
        self._count: UnreadCount | None = None

    def equals(self, other: "UnreadSnapshot") -> bool:
        """Whether the same is unread."""
        mine = self.ordinal, self._within, self._before
        return mine == (other.ordinal, other._within, other._before)

    def count(self) -> UnreadCount:
        """How much is unread."""
        if self._count is None:
            self._count = _sum_up(self._sums)
        return self._count

    def after(self, upto: int, events: int, notices: Iterable[PushAction]) -> "UnreadSnapshot":
        """What is unread after the next `events` events, of which these notify."""
        number = self.ordinal + events
        new = [(number - notice.age, _without_age(notice)) for notice in notices]
        within, before, dropped = [*self._within, *new], self._before, []
        first = 0
        while first < len(within) and within[first][0] <= number - WINDOW:
            first += 1
        if first:
            # What leaves the window is counted no longer, unless it names the user.
            left = [notice for _, notice in within[:first]]
            dropped = [notice for notice in left if not notice.mentioned]
            before = [*before, *(notice for notice in left if notice.mentioned)]
            dropped += before[:-MAX_NAMED]
            before = tuple(before[-MAX_NAMED:])
            within = within[first:]
        added = [notice for _, notice in new]
        return self._changed(upto, number, tuple(within), before, added, dropped)

    def with_older(self, notices: Iterable[PushAction]) -> "UnreadSnapshot":
        """With events from before the window that name the user, oldest first."""
        added = [notice for notice in notices if notice.mentioned]
        before = (*self._before, *added)
        dropped = before[:-MAX_NAMED]
        kept = before[-MAX_NAMED:]
        return self._changed(self.upto, self.ordinal, self._within, kept, added, dropped)

    def without(self, unwanted: Callable[[PushAction], bool]) -> "UnreadSnapshot":
        """What is left without some notices."""
        dropped = [notice for notice in self._before if unwanted(notice)]
        before = [notice for notice in self._before if not unwanted(notice)]
        dropped += [notice for _, notice in self._within if unwanted(notice)]
        if not dropped:
            return self
        within = tuple(item for item in self._within if not unwanted(item[1]))
        return self._changed(self.upto, self.ordinal, within, tuple(before), (), dropped)

    def _changed(
        self,
        upto: int,
        number: int,
        within: Sequence[_Numbered],
        before: Sequence[PushAction],
        added: Sequence[PushAction],
        dropped: Sequence[PushAction],
    ) -> "UnreadSnapshot":
        if not added and not dropped:
            return UnreadSnapshot(upto, number, within, before, self._sums, self.digest)
        sums, digest = dict(self._sums), self.digest
        for notice in added:
            _add(sums, notice, 1)
            digest ^= hash(notice)
        for notice in dropped:
            _add(sums, notice, -1)
            digest ^= hash(notice)
        return UnreadSnapshot(upto, number, within, before, sums, digest)


class SnapshotPool:
    """What is unread for the members of one room: the same object for all who have read the same.

    Each move from one to the next is worked out once.
    """

    def __init__(self) -> None:
        self._shared: WeakValueDictionary[tuple[int, int, int], UnreadSnapshot] = (
            WeakValueDictionary()
        )
        self._moves: dict[tuple[UnreadSnapshot, Hashable], UnreadSnapshot] = {}

    def intern(self, unread: UnreadSnapshot) -> UnreadSnapshot:
        """The object that stands for what is unread."""
        key = unread.upto, unread.ordinal, unread.digest
        shared = self._shared.get(key)
        if shared is not None and shared.equals(unread):
            return shared
        self._shared[key] = unread
        return unread

    def advance(
        self, start: UnreadSnapshot, step: Hashable, work_out: Callable[[], UnreadSnapshot]
    ) -> UnreadSnapshot:
        """What becomes of `start` by a step; equal steps must always lead to the same."""
        found = self._moves.get((start, step))
        if found is None:
            if len(self._moves) >= MAX_MOVES:
                self._moves.clear()
            found = self._moves[start, step] = self.intern(work_out())
        return found

    def forget_moves(self) -> None:
        """The room has moved on: the same moves will hardly be made again."""
        self._moves.clear()


class UnreadCounter:
    """Counts for one user and room, beginning with the `ordinal`th event at `upto`.

    `floor` is a position up to which everything is read. `states` are those of the room.
    """

    __slots__ = ("_floor", "_marks", "_states", "reach", "unread")

    def __init__(
        self, upto: int, floor: int = 0, *, number: int = 0, states: SnapshotPool | None = None
    ) -> None:
        self._states = SnapshotPool() if states is None else states
        self.unread = self._states.intern(UnreadSnapshot(upto, number))
        self.reach = floor  # the highest position that something is read up to
        self._floor = floor  # all up to this position is read
        self._marks: dict[str, int] = {}  # the same for threads and the main timeline

    @property
    def upto(self) -> int:
        """The position up to which events were taken in."""
        return self.unread.upto

    @property
    def floor(self) -> int:
        """The position up to which everything is read, whatever it belongs to."""
        return self._floor

    def is_all_read(self, position: int) -> bool:
        """Whether everything up to a position is read, whatever it belongs to."""
        return position <= self._floor

    def is_read(self, position: int, thread: str | None) -> bool:
        """Whether the user has read the event at a position."""
        return position <= self._floor or position <= self._marks.get(thread or MAIN, 0)

    def read(self, position: int, thread: str | None) -> None:
        """A receipt: the user has read up to a position, in a thread or, for `None`, everywhere."""
        self._mark(position, thread)
        unread = self.unread
        self.unread = self._states.advance(
            unread, (position, thread), lambda: unread.without(_read_by(position, thread))
        )

    def forget(self, position: int) -> None:
        """The event at a position was redacted."""
        unread = self.unread
        self.unread = self._states.advance(
            unread, position, lambda: unread.without(lambda notice: notice.position == position)
        )

    def advance(self, upto: int, events: int, news: Iterable[PushAction | OwnEvent]) -> None:
        """Take in the next `events` events, up to a position; `news` is what concerns the user."""
        notices: list[PushAction] = []
        for item in news:
            if isinstance(item, OwnEvent):
                self.read(item.position, item.thread or MAIN)
            else:
                notices.append(item)
        # Only now: an event of the user's own reads what came before it.
        wanted = tuple(one for one in notices if not self.is_read(one.position, one.thread))
        unread = self.unread
        self.unread = self._states.advance(
            unread, (upto, wanted), lambda: unread.after(upto, events, wanted)
        )

    def take_older(self, notices: Iterable[PushAction]) -> None:
        """Take in events from before the window that name the user."""
        unread = [one for one in notices if not self.is_read(one.position, one.thread)]
        self.unread = self._states.intern(self.unread.with_older(unread))

    def count(self) -> UnreadCount:
        """What is unread."""
        return self.unread.count()

    def _mark(self, position: int, thread: str | None) -> None:
        self.reach = max(self.reach, position)
        if thread is None:
            self._floor = max(self._floor, position)
        else:
            self._marks[thread] = max(self._marks.get(thread, 0), position)


def _read_by(position: int, thread: str | None) -> Callable[[PushAction], bool]:
    def is_read(notice: PushAction) -> bool:
        return notice.position <= position and thread in (None, notice.thread or MAIN)

    return is_read


def _without_age(notice: PushAction) -> PushAction:
    """The notice as it is told apart from others, whenever it was taken in."""
    return msgspec.structs.replace(notice, age=0) if notice.age else notice


def _add(sums: dict[str | None, tuple[int, int]], notice: PushAction, number: int) -> None:
    notifications, highlights = sums.pop(notice.thread, (0, 0))
    notifications += number
    if notifications:
        sums[notice.thread] = (notifications, highlights + (number if notice.highlight else 0))


def _sum_up(sums: _Sums) -> UnreadCount:
    notifications = highlights = 0
    for counts in sums.values():
        notifications += counts[0]
        highlights += counts[1]
    if None in sums and len(sums) == 1:
        return UnreadCount(notifications, highlights)
    threads = {thread: counts for thread, counts in sums.items() if thread is not None}
    return UnreadCount(notifications, highlights, threads)
