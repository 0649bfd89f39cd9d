"""The kinds of events, by type and state key together.

A type alone says little: any type can be sent with any state key, or with none. All code that needs
the kind of an event uses these functions, and so decides what a state key means for it. The
authorisation rules and the redaction algorithm use the type alone where the specification does.

Spec: https://spec.matrix.org/v1.19/client-server-api/#types-of-room-events
"""

from homeserver.protocol.event_types import (
    BEACON_INFO,
    CALL_INVITE,
    CREATE,
    ENCRYPTED,
    MEMBER,
    MESSAGE,
    POLL_START,
    REDACTION,
    STICKER,
    UNSTABLE_BEACON_INFO,
    UNSTABLE_POLL_START,
)
from homeserver.protocol.events import Event

BUMP_TYPES = (
    CREATE,
    MESSAGE,
    ENCRYPTED,
    STICKER,
    CALL_INVITE,
    POLL_START,
    UNSTABLE_POLL_START,
    BEACON_INFO,
    UNSTABLE_BEACON_INFO,
)
"""The types of events that are activity of a room, with any state key.

Spec: MSC4186
"""


def is_state(event: Event, event_type: str, state_key: str = "") -> bool:
    """Whether an event has this type and state key.

    A room has one name, one create event, one set of power levels: those with the empty key. An
    event of the type with another state key is a different thing.
    """
    return event.state_key == state_key and event.type == event_type


def is_member_event(event: Event, user_id: str | None = None) -> bool:
    """Whether an event sets the membership of a user, or of the given user; false without a state
    key.

    Only for local users must the key be a user id: room versions before 8 allow any.
    """
    if event.type != MEMBER or event.state_key is None:
        return False
    return user_id is None or event.state_key == user_id


def is_encrypted(event: Event) -> bool:
    """Whether an event is an encrypted message."""
    return event.type == ENCRYPTED and event.state_key is None


def is_message(event: Event) -> bool:
    """Whether an event is a message that is not encrypted."""
    return event.type == MESSAGE and event.state_key is None


def is_redaction(event: Event) -> bool:
    """Whether an event may redact another one, which `Event.redacts` names.

    An event with a state key may, too: no room version says otherwise, and other servers use the
    type alone. See `is_plain_redaction`.
    """
    return event.type == REDACTION


def is_plain_redaction(event: Event) -> bool:
    """Whether a redaction has no state key: only then can it be withheld until it takes effect.

    State events are shown whether or not they have an effect, so clients do not see the target of
    such a redaction, and local users cannot send one.
    """
    return event.type == REDACTION and event.state_key is None


def is_bump(event: Event) -> bool:
    """Whether an event is activity of its room, by which clients sort their rooms."""
    return event.type in BUMP_TYPES
