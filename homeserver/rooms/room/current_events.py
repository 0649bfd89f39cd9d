"""A writer's current state in the form that the authorisation rules read."""

from typing import Protocol

from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import StateKey


class HasCurrent(Protocol):
    """Who knows the current events of a room, queued ones included: a `RoomWriter`."""

    def current(self, key: StateKey) -> StoredEvent | None: ...


class CurrentEvents:
    """The events that are current when they are asked for. May raise `NotInMemory`."""

    __slots__ = ("_writer",)

    def __init__(self, writer: HasCurrent) -> None:
        self._writer = writer

    def get(self, key: StateKey) -> Event | None:
        stored = self._writer.current(key)
        return None if stored is None else stored.event
