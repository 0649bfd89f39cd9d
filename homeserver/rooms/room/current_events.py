"""A writer's current state in the form that the authorisation rules read."""

from typing import Protocol

from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import StateKey


class HasCurrent(Protocol):
    """Knows the current events of a room, including queued ones: a `RoomWriter`."""

    def current(self, key: StateKey) -> StoredEvent | None: ...


class CurrentEvents:
    """The events that are current when they are read. May raise `EventNotInMemory`."""

    __slots__ = ("_writer",)

    def __init__(self, writer: HasCurrent) -> None:
        self._writer = writer

    def get(self, key: StateKey) -> Event | None:
        stored = self._writer.current(key)
        return None if stored is None else stored.event
