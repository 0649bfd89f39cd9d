"""Values for the receipt of an event: the way in which it is received, and the result."""

import msgspec
from twisted.internet.defer import Deferred

from homeserver.rooms.events.stored_event import StoredEvent


class ReceivedEvent(msgspec.Struct, frozen=True):
    """A received event; `done` fires when it is durable, and is `None` if it was stored already."""

    stored: StoredEvent
    done: Deferred[None] | None = None


class Reception(msgspec.Struct, frozen=True):
    """The options of `PduReceiver.receive` for one event, and the policy server's decision."""

    is_remote_join: bool
    is_backfilled: bool
    should_send: bool
    not_recommended: str | None = None  # the reason of the room's policy server
    may_merge: bool = True  # join branches first, if there are too many
