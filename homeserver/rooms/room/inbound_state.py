"""The part of a room's writer that only concerns events received from other servers."""

from collections.abc import Collection, Iterable

from twisted.internet.defer import DeferredLock


class InboundState:
    """The state of receiving events in one room.

    `lock` is held while an event is checked and admitted: events are received one after the other.
    `is_partial` is true while the room has partial state, so that every received event will be
    checked again.
    """

    __slots__ = ("_absent", "_is_partial", "lock")

    def __init__(self, *, is_partial: bool) -> None:
        self.lock = DeferredLock()
        self._is_partial = is_partial
        self._absent: set[str] = set()

    @property
    def is_partial(self) -> bool:
        return self._is_partial

    def set_partial(self, is_partial: bool) -> None:
        """Record that the room has partial state from now on, or no longer."""
        self._is_partial = is_partial

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
