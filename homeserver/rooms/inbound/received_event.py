"""Values of the reception of an event: how it is received, and what became of it."""

from dataclasses import dataclass

from twisted.internet.defer import Deferred

from homeserver.rooms.events.stored_event import StoredEvent


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """A received event, and when that is durable; `None` if it was known already."""

    stored: StoredEvent
    done: Deferred[None] | None = None


@dataclass(frozen=True, slots=True)
class Reception:
    """The way in which an event was received, as in `PduReceiver.receive`."""

    is_remote_join: bool
    is_past: bool
    should_send: bool
    not_recommended: str | None = None  # why, by the room's policy server
    may_merge: bool = True  # branches, if there are too many
