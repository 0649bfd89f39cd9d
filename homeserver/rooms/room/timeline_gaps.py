"""The gaps in a room's timeline: where it goes on with an event whose past is not in it.

An event of another server may follow events that are not here: after an outage, or when this server
joins the room anew. It stands in the timeline right after what came before, and nobody must take
the two for neighbours. So a timeline that is shown ends at the newest gap: the client gets what is
above it, is told that this is not all, and pages back, which has the gap filled.

What is fetched for a gap stands in the past, so that it is in no timeline, and the gap remains one.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from collections import deque
from collections.abc import Iterable

MAX_IN_MEMORY = 16
"""Gaps of one room: only who looks far back, such as one who left long ago, meets older ones."""


class TimelineGaps:
    """The newest gaps of one room, each as the position of the first event after it."""

    def __init__(self, newest: Iterable[int] = ()) -> None:
        """`newest` are those that are stored, or of many the last `MAX_IN_MEMORY`."""
        self._positions: deque[int] = deque(sorted(newest), MAX_IN_MEMORY)

    @property
    def last(self) -> int:
        """The newest position; 0 where there is no gap."""
        return self._positions[-1] if self._positions else 0

    def add(self, position: int) -> None:
        """Note a gap before the event that has just come."""
        self._positions.append(position)

    def newest(self, upto: int) -> int | None:
        """The newest position up to another, 0 for none; `None` where only the database knows."""
        for position in reversed(self._positions):
            if position <= upto:
                return position
        return None if len(self._positions) == MAX_IN_MEMORY else 0
