"""The gaps in a room's timeline: an event after a gap has missing events before it.

An event of another server may follow events that are not stored: after an outage, or when this
server joins the room again. It is in the timeline right after the previous one, and clients must
not treat the two as consecutive. So a timeline that is shown ends at the newest gap: the client
gets the events after it, and `limited`, and pages back, which backfills the gap.

Backfilled events are in history only, not in a timeline, so the gap remains. The same holds for
imported events, which make such a gap where they are inserted.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from bisect import insort
from collections.abc import Iterable

MAX_IN_MEMORY = 16
"""Gaps of one room: older ones matter only to users who page far back or left long ago."""


class TimelineGaps:
    """The newest gaps of one room, each as the position of the first event after it."""

    def __init__(self, newest: Iterable[int] = ()) -> None:
        """`newest` are the stored gaps, at most the last `MAX_IN_MEMORY`."""
        # Most rooms have none, and an empty deque takes ten times the memory of a list.
        self._positions = sorted(newest)[-MAX_IN_MEMORY:]

    @property
    def last(self) -> int:
        """The newest position; 0 if there is no gap."""
        return self._positions[-1] if self._positions else 0

    def add(self, position: int) -> None:
        """Record a gap before an event: mostly one that has just arrived."""
        if position not in self._positions:
            # Not the last one, where old messages were imported before an older event.
            insort(self._positions, position)
            del self._positions[:-MAX_IN_MEMORY]

    def newest(self, upto: int) -> int | None:
        """The newest position up to another, 0 for none; `None` if only the database has it."""
        for position in reversed(self._positions):
            if position <= upto:
                return position
        return None if len(self._positions) == MAX_IN_MEMORY else 0
