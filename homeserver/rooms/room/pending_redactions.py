"""Redactions that wait for their targets: a bounded number in each room.

Those beyond that stand in the graph like the others, but take no effect any more. They are of
events that nobody has given us, so it is only somebody who makes up such events that gets there.

Spec: https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
"""

from collections.abc import Mapping

from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.storage.database.batch import Row
from homeserver.storage.rooms.graph_edges import INSERT_PENDING_REDACTION

MAX_TARGETS = 1_000  # that are waited for in one room
MAX_OF_TARGET = 10  # redactions of one event


class PendingRedactions:
    """Those of one room. `targets` has the ids of the events that are waited for, and for each the
    numbers of its redactions, with whether each is of the past.
    """

    def __init__(self, room: int, known: Mapping[str, dict[int, bool]] | None = None) -> None:
        self._room = room
        self.targets = dict(known or {})

    def add(self, target_id: str, redaction: StoredEvent, *, is_past: bool) -> list[Row]:
        """Remember a redaction until its target is here; the row that does so too."""
        waiting = self.targets.get(target_id, {})
        if len(waiting) >= MAX_OF_TARGET or (not waiting and len(self.targets) >= MAX_TARGETS):
            return []
        self.targets[target_id] = {**waiting, redaction.event_nid: is_past}
        return [INSERT_PENDING_REDACTION.row(self._room, target_id, redaction.event_nid, is_past)]

    def of(self, target_id: str) -> Mapping[int, bool]:
        """The redactions of an event; empty where there are none."""
        return self.targets.get(target_id, {})

    def settle(self, target_id: str) -> None:
        """The target is here: nothing waits for it any more."""
        self.targets.pop(target_id, None)
