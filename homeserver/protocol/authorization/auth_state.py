"""The state of a room as the authorisation rules read it.

`AuthState` wraps a mapping of the state (a dict, a cache over a state tree) and caches what most
rules need, so that the check of a message in an unchanged room costs a few look-ups. It is as
immutable as what it wraps: when the state changes, make a new one.

Spec: https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules
"""

from functools import cached_property
from typing import Protocol

from homeserver.protocol.event_types import CREATE_KEY, JOIN_RULES, MEMBER, POWER_LEVELS
from homeserver.protocol.events import Event
from homeserver.protocol.power_levels import PowerLevels


class StateEvents(Protocol):
    """State events by (type, state key); any mapping will do."""

    def get(self, key: tuple[str, str], /) -> Event | None: ...


class AuthState:
    """The state that an event is checked against."""

    def __init__(self, events: StateEvents) -> None:
        self._events = events

    def get(self, event_type: str, state_key: str = "") -> Event | None:
        """The state event of this type and key, if the room has one."""
        return self._events.get((event_type, state_key))

    @cached_property
    def found_create(self) -> Event | None:
        """The create event, or `None` if this is not the state of a room."""
        return self._events.get(CREATE_KEY)

    @property
    def create(self) -> Event:
        """The create event. Raises `LookupError` if there is none, which `check_auth` rules out."""
        create = self.found_create
        if create is None:
            raise LookupError("the state has no m.room.create event")
        return create

    @cached_property
    def is_federated(self) -> bool:
        """Whether users of other servers than the creator's may take part."""
        return self.create.content.get("m.federate") is not False

    @cached_property
    def power_levels(self) -> PowerLevels:
        """The power levels in force: those of the room, or the defaults."""
        event = self.get(POWER_LEVELS)
        return PowerLevels(self.create, None if event is None else event.content)

    @cached_property
    def join_rule(self) -> str:
        """The join rule; `invite` if the room has none.

        A value that is not a string allows no user to join, and is returned as the empty name.
        """
        event = self.get(JOIN_RULES)
        rule = "invite" if event is None else event.content.get("join_rule", "invite")
        return rule if isinstance(rule, str) else ""

    def membership(self, user_id: str) -> str:
        """The membership of a user; `leave` for one who was never in the room."""
        event = self._events.get((MEMBER, user_id))
        membership = None if event is None else event.content.get("membership")
        return membership if isinstance(membership, str) else "leave"
