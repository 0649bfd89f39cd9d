"""What an event is, by its type and its state key together.

A type alone says little: any type can be sent with any state key, or with none. Whoever asks what
an event is asks here, and so says what a state key means for the answer. The authorisation rules
and the redaction algorithm go by the type alone where their text does, and stand beside it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#types-of-room-events
"""

from homeserver.protocol.event_types import MEMBER, REDACTION
from homeserver.protocol.events import Event


def is_state(event: Event, event_type: str, state_key: str = "") -> bool:
    """Whether an event is the room's state of a type; what has another state key is something else.

    A room has one name, one create event, one set of power levels: those with the empty key.
    """
    return event.state_key == state_key and event.type == event_type


def is_member_event(event: Event, user_id: str | None = None) -> bool:
    """Whether an event sets the membership of a user, or of this user. Without a key it is of none.

    That the key is a user id is asked of our own users only: room versions before 8 take any.
    """
    if event.type != MEMBER or event.state_key is None:
        return False
    return user_id is None or event.state_key == user_id


def is_redaction(event: Event) -> bool:
    """Whether an event may redact another one, which `Event.redacts` names.

    With a state key it does so too: no text of any room version says otherwise, and other servers
    go by the type. See `is_plain_redaction`.
    """
    return event.type == REDACTION


def is_plain_redaction(event: Event) -> bool:
    """Whether a redaction is no state: only then can it be withheld until it takes effect.

    State is shown whatever became of it, so clients are not told what such a redaction names, and
    users of this server cannot send one.
    """
    return event.type == REDACTION and event.state_key is None
