"""A tally: the unread events of one user in one room, as far as it has been counted.

It is a value in memory that takes in events and receipts, and does not wait. What counts is what
notifies the user among the newest `WINDOW` events of the room, and before those what names them; so
the result depends on the room and the receipts alone, never on when it was counted.

A receipt without a thread reads the whole room, one with a thread that thread alone. The user's own
event reads the part of the timeline that it was sent to.

Spec: https://spec.matrix.org/v1.19/client-server-api/#marking-notifications-as-read
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from homeserver.rooms.room_receipts import MAIN

WINDOW: Final = 300
MAX_NAMED: Final = 100  # events before the window that name the user


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


class Notice(msgspec.Struct, frozen=True):
    """An event that notifies the user. `age` is the number of events since, in what is taken in.

    `named` says that it mentions the user, or everybody.
    """

    position: int
    thread: str | None
    highlight: bool
    named: bool
    age: int = 0


class OwnEvent(msgspec.Struct, frozen=True):
    """An event of the user's own."""

    position: int
    thread: str | None


class Tally:
    """Counts for one user and room. `upto` is the position up to which events were taken in."""

    __slots__ = ("_before", "_count", "_floor", "_marks", "_number", "_sums", "_within", "upto")

    def __init__(self, upto: int, floor: int = 0) -> None:
        self.upto = upto
        self._floor = floor  # all up to this position is read
        self._marks: dict[str, int] = {}  # the same for threads and the main timeline
        self._number = 0  # of the newest event
        self._within: deque[tuple[int, Notice]] = deque()  # by number, oldest first
        self._before: deque[Notice] = deque()
        self._sums: dict[str | None, tuple[int, int]] = {}
        self._count: UnreadCount | None = None

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
        if thread is None:
            self._floor = max(self._floor, position)
        else:
            self._marks[thread] = max(self._marks.get(thread, 0), position)
        self._keep(lambda notice: not self.is_read(notice.position, notice.thread))

    def forget(self, position: int) -> None:
        """The event at a position was redacted."""
        self._keep(lambda notice: notice.position != position)

    def take(self, upto: int, events: int, news: Iterable[Notice | OwnEvent]) -> None:
        """Take in the next `events` events, up to a position; `news` is what concerns the user."""
        self.upto = upto
        self._number += events
        for item in news:
            if isinstance(item, OwnEvent):
                self.read(item.position, item.thread or MAIN)
            elif not self.is_read(item.position, item.thread):
                self._within.append((self._number - item.age, item))
                self._add(item, 1)
        while self._within and self._within[0][0] <= self._number - WINDOW:
            self._move_out(self._within.popleft()[1])

    def take_older(self, notices: Iterable[Notice]) -> None:
        """Take in events from before the window that name the user."""
        for notice in notices:
            if not self.is_read(notice.position, notice.thread):
                self._add(notice, 1)
                self._move_out(notice)

    def count(self) -> UnreadCount:
        """What is unread."""
        if self._count is None:
            self._count = _sum_up(self._sums)
        return self._count

    def _keep(self, wanted: Callable[[Notice], bool]) -> None:
        for notice in [*self._before, *(notice for _, notice in self._within)]:
            if not wanted(notice):
                self._add(notice, -1)
        self._before = deque(notice for notice in self._before if wanted(notice))
        self._within = deque(item for item in self._within if wanted(item[1]))

    def _move_out(self, notice: Notice) -> None:
        """What leaves the window is counted no longer, unless it names the user."""
        if not notice.named:
            self._add(notice, -1)
            return
        self._before.append(notice)
        if len(self._before) > MAX_NAMED:
            self._add(self._before.popleft(), -1)

    def _add(self, notice: Notice, number: int) -> None:
        notifications, highlights = self._sums.pop(notice.thread, (0, 0))
        notifications += number
        if notifications:
            highlights += number if notice.highlight else 0
            self._sums[notice.thread] = (notifications, highlights)
        self._count = None


def _sum_up(sums: Mapping[str | None, tuple[int, int]]) -> UnreadCount:
    notifications = highlights = 0
    for counts in sums.values():
        notifications += counts[0]
        highlights += counts[1]
    if None in sums and len(sums) == 1:
        return UnreadCount(notifications, highlights)
    threads = {thread: counts for thread, counts in sums.items() if thread is not None}
    return UnreadCount(notifications, highlights, threads)
