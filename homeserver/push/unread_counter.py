"""A counter of the unread events of one user in one room, up to a position.

It is an object in memory that applies events and receipts without waiting. It counts the events
that notify the user among the newest `WINDOW` events of the room, and older ones that mention them;
so the result depends on the room and the receipts alone, never on when it was counted.

A receipt without a thread reads the whole room, one with a thread that thread alone. The user's own
event reads the part of the timeline that it was sent to.

The unread events, `UnreadSnapshot`, never change: a counter advances from one snapshot to the next.
Members with the same unread events share one snapshot, and the snapshot after an event or a receipt
is computed once for all of them (`SnapshotPool`).

Spec: https://spec.matrix.org/v1.19/client-server-api/#marking-notifications-as-read
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from homeserver.rooms.room.room_receipts import MAIN

WINDOW: Final = 300
MAX_MENTIONS: Final = 100  # events before the window that mention the user
MAX_CACHED_STEPS: Final = 1_000  # of one room


class UnreadCount(msgspec.Struct, frozen=True):
    """The number of unread notifications of a room, and how many of them are highlighted.

    `threads` has the counts of threads, (notifications, highlights) by the id of the root; the
    totals include them.
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
    """An event that notifies the user. `age` is the number of later events in the same batch.

    `mentioned` says that it mentions the user, or the room.
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


_Numbered = tuple[int, PushAction]  # with the ordinal of the event in the room
_Sums = Mapping[str | None, tuple[int, int]]


class UnreadSnapshot:
    """The unread events after the event at `upto`, the `ordinal`th of the room. Immutable."""

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
        ordinal: int = 0,
        within: Sequence[_Numbered] = (),
        before: Sequence[PushAction] = (),
        sums: _Sums | None = None,
        digest: int = 0,
    ) -> None:
        self.upto = upto
        self.ordinal = ordinal
        self.digest = digest  # of the unread events, independent of their order
        self._within = within  # in the window, oldest first
        self._before = before
        self._sums: _Sums = {} if sums is None else sums
        self._count: UnreadCount | None = None

    def equals(self, other: "UnreadSnapshot") -> bool:
        """Whether the same events are unread."""
        mine = self.ordinal, self._within, self._before
        return mine == (other.ordinal, other._within, other._before)

    def count(self) -> UnreadCount:
        """The unread counts."""
        if self._count is None:
            self._count = _sum_up(self._sums)
        return self._count

    def after(self, upto: int, events: int, actions: Iterable[PushAction]) -> "UnreadSnapshot":
        """The snapshot after the next `events` events, of which these notify."""
        ordinal = self.ordinal + events
        new = [(ordinal - action.age, _without_age(action)) for action in actions]
        within, before, dropped = [*self._within, *new], self._before, []
        first = 0
        while first < len(within) and within[first][0] <= ordinal - WINDOW:
            first += 1
        if first:
            # Events that leave the window no longer count, unless they mention the user.
            left = [action for _, action in within[:first]]
            dropped = [action for action in left if not action.mentioned]
            before = [*before, *(action for action in left if action.mentioned)]
            dropped += before[:-MAX_MENTIONS]
            before = tuple(before[-MAX_MENTIONS:])
            within = within[first:]
        added = [action for _, action in new]
        return self._changed(upto, ordinal, tuple(within), before, added, dropped)

    def with_older(self, actions: Iterable[PushAction]) -> "UnreadSnapshot":
        """The snapshot with events from before the window that mention the user, oldest first."""
        added = [action for action in actions if action.mentioned]
        before = (*self._before, *added)
        dropped = before[:-MAX_MENTIONS]
        kept = before[-MAX_MENTIONS:]
        return self._changed(self.upto, self.ordinal, self._within, kept, added, dropped)

    def without(self, unwanted: Callable[[PushAction], bool]) -> "UnreadSnapshot":
        """The snapshot without some actions."""
        dropped = [action for action in self._before if unwanted(action)]
        before = [action for action in self._before if not unwanted(action)]
        dropped += [action for _, action in self._within if unwanted(action)]
        if not dropped:
            return self
        within = tuple(item for item in self._within if not unwanted(item[1]))
        return self._changed(self.upto, self.ordinal, within, tuple(before), (), dropped)

    def _changed(
        self,
        upto: int,
        ordinal: int,
        within: Sequence[_Numbered],
        before: Sequence[PushAction],
        added: Sequence[PushAction],
        dropped: Sequence[PushAction],
    ) -> "UnreadSnapshot":
        if not added and not dropped:
            return UnreadSnapshot(upto, ordinal, within, before, self._sums, self.digest)
        sums, digest = dict(self._sums), self.digest
        for action in added:
            _add(sums, action, 1)
            digest ^= hash(action)
        for action in dropped:
            _add(sums, action, -1)
            digest ^= hash(action)
        return UnreadSnapshot(upto, ordinal, within, before, sums, digest)


class SnapshotPool:
    """The snapshots of one room: members who have read the same share one object.

    Each step from one to the next is computed once.
    """

    def __init__(self) -> None:
        self._shared: WeakValueDictionary[tuple[int, int, int], UnreadSnapshot] = (
            WeakValueDictionary()
        )
        self._steps: dict[tuple[UnreadSnapshot, Hashable], UnreadSnapshot] = {}

    def intern(self, unread: UnreadSnapshot) -> UnreadSnapshot:
        """The shared object equal to a snapshot."""
        key = unread.upto, unread.ordinal, unread.digest
        shared = self._shared.get(key)
        if shared is not None and shared.equals(unread):
            return shared
        self._shared[key] = unread
        return unread

    def advance(
        self, start: UnreadSnapshot, step: Hashable, compute: Callable[[], UnreadSnapshot]
    ) -> UnreadSnapshot:
        """The snapshot after a step from `start`; equal steps must always have equal results."""
        found = self._steps.get((start, step))
        if found is None:
            if len(self._steps) >= MAX_CACHED_STEPS:
                self._steps.clear()
            found = self._steps[start, step] = self.intern(compute())
        return found

    def clear_steps(self) -> None:
        """Forget the computed steps: after a new event the same steps will hardly come again."""
        self._steps.clear()


class UnreadCounter:
    """Counts for one user and room, beginning after the `ordinal`th event at `upto`.

    `floor` is a position up to which everything is read. `snapshots` are those of the room.
    """

    __slots__ = ("_floor", "_read_by_thread", "_snapshots", "highest_read", "unread")

    def __init__(
        self, upto: int, floor: int = 0, *, ordinal: int = 0, snapshots: SnapshotPool | None = None
    ) -> None:
        self._snapshots = SnapshotPool() if snapshots is None else snapshots
        self.unread = self._snapshots.intern(UnreadSnapshot(upto, ordinal))
        self.highest_read = floor  # the highest position of a receipt, in any thread
        self._floor = floor  # everything up to this position is read
        self._read_by_thread: dict[str, int] = {}  # the same by thread, and for the main timeline

    @property
    def upto(self) -> int:
        """The position up to which events were counted."""
        return self.unread.upto

    @property
    def floor(self) -> int:
        """The position up to which everything is read, in all threads."""
        return self._floor

    def is_all_read(self, position: int) -> bool:
        """Whether everything up to a position is read, in all threads."""
        return position <= self._floor

    def is_read(self, position: int, thread: str | None) -> bool:
        """Whether the user has read the event at a position."""
        return position <= self._floor or position <= self._read_by_thread.get(thread or MAIN, 0)

    def read(self, position: int, thread: str | None) -> None:
        """Apply a receipt for a position, of one thread or, for `None`, of all."""
        self._mark(position, thread)
        unread = self.unread
        self.unread = self._snapshots.advance(
            unread, (position, thread), lambda: unread.without(_read_by(position, thread))
        )

    def forget(self, position: int) -> None:
        """Remove the event at a position, which was redacted."""
        unread = self.unread
        self.unread = self._snapshots.advance(
            unread, position, lambda: unread.without(lambda action: action.position == position)
        )

    def advance(self, upto: int, events: int, items: Iterable[PushAction | OwnEvent]) -> None:
        """Count the next `events` events, up to a position; `items` concern the user."""
        actions: list[PushAction] = []
        for item in items:
            if isinstance(item, OwnEvent):
                self.read(item.position, item.thread or MAIN)
            else:
                actions.append(item)
        # Only now: the user's own event marks those before it as read.
        wanted = tuple(one for one in actions if not self.is_read(one.position, one.thread))
        unread = self.unread
        self.unread = self._snapshots.advance(
            unread, (upto, wanted), lambda: unread.after(upto, events, wanted)
        )

    def add_older(self, actions: Iterable[PushAction]) -> None:
        """Count events from before the window that mention the user."""
        unread = [one for one in actions if not self.is_read(one.position, one.thread)]
        self.unread = self._snapshots.intern(self.unread.with_older(unread))

    def count(self) -> UnreadCount:
        """The unread counts."""
        return self.unread.count()

    def _mark(self, position: int, thread: str | None) -> None:
        self.highest_read = max(self.highest_read, position)
        if thread is None:
            self._floor = max(self._floor, position)
        else:
            self._read_by_thread[thread] = max(self._read_by_thread.get(thread, 0), position)


def _read_by(position: int, thread: str | None) -> Callable[[PushAction], bool]:
    def is_read(action: PushAction) -> bool:
        return action.position <= position and thread in (None, action.thread or MAIN)

    return is_read


def _without_age(action: PushAction) -> PushAction:
    """The action in the form that is compared: equal whenever it was counted."""
    return msgspec.structs.replace(action, age=0) if action.age else action


def _add(sums: dict[str | None, tuple[int, int]], action: PushAction, sign: int) -> None:
    notifications, highlights = sums.pop(action.thread, (0, 0))
    notifications += sign
    if notifications:
        sums[action.thread] = (notifications, highlights + (sign if action.highlight else 0))


def _sum_up(sums: _Sums) -> UnreadCount:
    notifications = highlights = 0
    for counts in sums.values():
        notifications += counts[0]
        highlights += counts[1]
    if None in sums and len(sums) == 1:
        return UnreadCount(notifications, highlights)
    threads = {thread: counts for thread, counts in sums.items() if thread is not None}
    return UnreadCount(notifications, highlights, threads)
