"""The current state of a room as its writer sees it: with the changes that are still queued."""

from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.events import Event
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import Changes, StateKey
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_storage import EventsNotInMemory

Snapshot = tuple[dict[StateKey, tuple[int, StoredEvent | None]], AuthState]


class QueuedState:
    """The current state of one room, including changes that the log has not published yet.

    `auth` is the state as the authorisation rules read it; reading it may raise
    `EventsNotInMemory`.
    """

    __slots__ = ("_auth", "_current")

    def __init__(self, room: Room, events: EventStore) -> None:
        self._current = _CurrentEvents(room, events)
        self._auth = AuthState(self._current)

    def __bool__(self) -> bool:
        """Whether changes are queued."""
        return bool(self._current.queued)

    @property
    def auth(self) -> AuthState:
        return self._auth

    def change(self, position: int, changes: Changes) -> None:
        """Queue changes that are in the log at a position."""
        self._current.queued.update({key: (position, now) for key, now in changes.items()})
        if changes:
            self._auth = AuthState(self._current)

    def published(self, position: int, changes: Changes) -> None:
        """Drop changes that the log has published at a position: the room itself shows them now."""
        for key in changes:
            queued = self._current.queued.get(key)
            if queued is not None and queued[0] == position:
                del self._current.queued[key]

    def snapshot(self) -> Snapshot:
        """A copy of the queued changes, for `restore`."""
        return dict(self._current.queued), self._auth

    def restore(self, snapshot: Snapshot) -> None:
        """Undo all changes since a snapshot was made."""
        self._current.queued, self._auth = snapshot

    def current_nid(self, key: StateKey) -> int | None:
        """The numeric id of the current event of a type and state key."""
        queued = self._current.queued.get(key)
        if queued is None:
            return self._current.room.number_of(key)
        return None if queued[1] is None else queued[1].event_nid

    def current(self, key: StateKey) -> StoredEvent | None:
        """The current event of a type and state key.

        Raises `EventsNotInMemory` where it must be loaded.
        """
        return self._current.stored(key)

    def membership(self, user_id: str) -> str | None:
        """The user's membership."""
        queued = self._current.queued.get((MEMBER, user_id))
        if queued is not None:
            membership: str | None = None
            if queued[1] is not None:
                membership = queued[1].event.content.get("membership")
            return membership
        return self._current.room.members.get(user_id)


class _CurrentEvents:
    """The events that are current when they are read, in the form of `AuthState`.

    Refers to nothing that refers to it: rooms that leave memory are no work for the garbage
    collector.
    """

    __slots__ = ("_events", "queued", "room")

    def __init__(self, room: Room, events: EventStore) -> None:
        self.room = room
        self.queued: dict[StateKey, tuple[int, StoredEvent | None]] = {}
        self._events = events

    def get(self, key: StateKey) -> Event | None:
        stored = self.stored(key)
        return None if stored is None else stored.event

    def stored(self, key: StateKey) -> StoredEvent | None:
        """The event with its place in the room. Raises `EventsNotInMemory`."""
        queued = self.queued.get(key)
        if queued is not None:
            return queued[1]
        event_nid = self.room.number_of(key)
        if event_nid is None:
            return None
        stored = self._events.cached(event_nid)
        if stored is None:
            raise EventsNotInMemory(self._events, self.room.version, [event_nid])
        return stored
