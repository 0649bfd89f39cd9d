"""Reads of events that are under way, and what the log publishes about these events meanwhile.

A row may have been read before the commit that changed it, and arrive after the log has published
the change. The reader that makes an event of the row applies what was published in between.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from homeserver.rooms.events.stored_event import StoredEvent

EventChange = Callable[[StoredEvent], None]
"""A change of an event. It has no effect on an event that has it already."""


class PendingReads:
    """The reads of events that have not ended."""

    def __init__(self) -> None:
        self._reads: list[dict[int, list[EventChange]]] = []

    @contextmanager
    def reading(self, event_nids: Iterable[int]) -> Iterator[Mapping[int, Sequence[EventChange]]]:
        """Record what is published about events, by nid, while their rows are being read."""
        read: dict[int, list[EventChange]] = {event_nid: [] for event_nid in event_nids}
        self._reads.append(read)
        try:
            yield read
        finally:
            self._reads = [each for each in self._reads if each is not read]

    def publish(self, event_nid: int, change: EventChange) -> None:
        """Have a change applied to the event, if it is being read."""
        for read in self._reads:
            if event_nid in read:
                read[event_nid].append(change)
