"""Pending redactions, which wait for their targets: a bounded number in each room.

Redactions beyond the bound are in the graph like the others, but never take effect. Only a server
that redacts invented events can reach the bound.

Spec: https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
"""

from collections.abc import Mapping

from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.storage.database.batch import Row
from homeserver.storage.rooms.graph_edges import INSERT_PENDING_REDACTION

MAX_TARGETS = 1_000  # missing events of one room
MAX_OF_TARGET = 10  # redactions of one event


class PendingRedactions:
    """The pending redactions of one room.

    `targets` has the ids of the missing events, and for each the nids of its redactions; the
    value says whether the redaction was backfilled.
    """

    def __init__(self, room: int, known: Mapping[str, dict[int, bool]] | None = None) -> None:
        self._room = room
        self.targets = dict(known or {})

    def add(self, target_id: str, redaction: StoredEvent, *, is_backfilled: bool) -> list[Row]:
        """Remember a redaction until its target arrives; returns the row that stores it."""
        waiting = self.targets.get(target_id, {})
        if len(waiting) >= MAX_OF_TARGET or (not waiting and len(self.targets) >= MAX_TARGETS):
            return []
        self.targets[target_id] = {**waiting, redaction.event_nid: is_backfilled}
        return [
            INSERT_PENDING_REDACTION.row(self._room, target_id, redaction.event_nid, is_backfilled)
        ]

    def of(self, target_id: str) -> Mapping[int, bool]:
        """The redactions of an event; empty if there are none."""
        return self.targets.get(target_id, {})

    def settle(self, target_id: str) -> None:
        """Drop the redactions of an event that has arrived."""
        self.targets.pop(target_id, None)
