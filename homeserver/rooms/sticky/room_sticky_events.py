"""The sticky events of one room in memory: what is needed to find them, not the events themselves.

They are bounded. Beyond what one sender may have, the sender's event that ends first is dropped;
beyond what a room may have, one of the server whose users have most. So nobody can have the events
of others dropped.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

MAX_OF_SENDER = 100
MAX_IN_ROOM = 2_000
MAX_SOFT_FAILED = 500


class StickyEvent(NamedTuple):
    """A sticky event: its nid, its place in the log, its end in ms, its sender, its size in bytes.

    Its place is where members of the room began to get it.
    """

    event_nid: int
    position: int
    until_ms: int
    sender: str
    size: int

    @property
    def server(self) -> str:
        """The server of the sender."""
        return self.sender.partition(":")[2]


class RoomStickyEvents:
    """The sticky events of one room, in the order of their places.

    `soft_failed` are the senders of events that may yet be accepted, by nid.
    """

    __slots__ = ("_events", "_of_sender", "soft_failed")

    def __init__(self) -> None:
        self._events: dict[int, StickyEvent] = {}
        self._of_sender: Counter[str] = Counter()
        self.soft_failed: dict[int, tuple[str, int]] = {}  # with their ends

    def __len__(self) -> int:
        return len(self._events)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known of the room."""
        return not (self._events or self.soft_failed)

    def add(self, event: StickyEvent) -> None:
        """Add the newest event; another may be dropped for it."""
        self.soft_failed.pop(event.event_nid, None)
        if event.event_nid in self._events:
            return
        self._events[event.event_nid] = event
        self._of_sender[event.sender] += 1
        if self._of_sender[event.sender] > MAX_OF_SENDER:
            self._drop_first(each for each in self._events.values() if each.sender == event.sender)
        elif len(self._events) > MAX_IN_ROOM:
            servers = Counter(each.server for each in self._events.values())
            largest = servers.most_common(1)[0][0]
            self._drop_first(each for each in self._events.values() if each.server == largest)

    def add_soft_failed(self, event_nid: int, sender: str, until_ms: int) -> None:
        """Add an event that may yet be accepted; the oldest one may be dropped for it."""
        self.soft_failed[event_nid] = sender, until_ms
        if len(self.soft_failed) > MAX_SOFT_FAILED:
            del self.soft_failed[next(iter(self.soft_failed))]

    def remove(self, event_nid: int) -> None:
        """Remove an event, if it is there."""
        self.soft_failed.pop(event_nid, None)
        event = self._events.pop(event_nid, None)
        if event is not None:
            self._of_sender[event.sender] -= 1
            if not self._of_sender[event.sender]:
                del self._of_sender[event.sender]

    def end(self, now_ms: int) -> None:
        """Remove what sticks no longer."""
        ended = [each.event_nid for each in self._events.values() if each.until_ms <= now_ms]
        ended += [nid for nid, (_, until_ms) in self.soft_failed.items() if until_ms <= now_ms]
        for event_nid in ended:
            self.remove(event_nid)

    def above(self, position: int) -> list[StickyEvent]:
        """The events above a position."""
        found = []
        for event in reversed(self._events.values()):
            if event.position <= position:
                break
            found.append(event)
        found.reverse()
        return found

    def of_sender(self, sender: str) -> list[StickyEvent]:
        """The events of a user."""
        if sender not in self._of_sender:
            return []
        return [each for each in self._events.values() if each.sender == sender]

    def _drop_first(self, events: Iterable[StickyEvent]) -> None:
        self.remove(min(events, key=lambda each: each.until_ms).event_nid)
