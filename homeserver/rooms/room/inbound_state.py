"""The part of a room's writer that only concerns events received from other servers."""

from collections.abc import Collection, Iterable

from twisted.internet.defer import DeferredLock


class InboundState:
    """The state of receiving events in one room.

    `lock` is held while an event is checked and admitted: events are received one after the other.
    `partial_join` is the id of the event that joined the room with partial state, queued changes
    included, or `None` if the room has full state. With partial state every received event will be
    checked again.
    """

    __slots__ = ("_absent", "_partial_join", "lock")

    def __init__(self, partial_join: str | None) -> None:
        self.lock = DeferredLock()
        self._partial_join = partial_join
        self._absent: set[str] = set()

    @property
    def partial_join(self) -> str | None:
        return self._partial_join

    def set_partial_join(self, event_id: str | None) -> None:
        """Record a join with partial state (`event_id`), or with full state (`None`)."""
        self._partial_join = event_id

    def end_partial(self, join_id: str) -> None:
        """Record the end of the partial state of a join, unless there was a later join."""
        if self._partial_join == join_id:
            self._partial_join = None

    @property
    def absent(self) -> Collection[str]:
        """Ids of events that were looked up lately and are not stored."""
        return self._absent

    def set_absent(self, event_ids: Iterable[str]) -> None:
        """Replace the ids of events that are known not to be stored."""
        self._absent = set(event_ids)

    def arrived(self, event_id: str) -> None:
        """Record that an event is about to be stored: it is no longer absent."""
        self._absent.discard(event_id)
