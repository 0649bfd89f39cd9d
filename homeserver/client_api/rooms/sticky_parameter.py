"""For how long an event shall stick: a parameter in the query of a request that sends one.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4354
"""

from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.proposals.sticky_events import (
    MAX_DURATION_MS,
    STICKY,
    is_valid_duration,
)
from homeserver.protocol.proposals.unstable_names import UNSTABLE_STICKY, UNSTABLE_STICKY_DURATION
from homeserver.rooms.events.event_draft import Stickiness
from homeserver.web.request import Request

STICKY_DURATION = "sticky_duration_ms"
MAX_DIGITS = 16
MARK = b"sticky_duration_ms"
_NAMES = {STICKY_DURATION: STICKY, UNSTABLE_STICKY_DURATION: UNSTABLE_STICKY}


def stickiness_in(request: Request) -> Stickiness | None:
    """For how long the event of a request shall stick, if it says so. Raises `InvalidParam`.

    It costs next to nothing where it does not, as all messages ask.
    """
    if MARK not in request.query:
        return None
    found = [(name, text) for name in _NAMES for text in request.parameters.get(name, ())]
    if not found:
        return None
    name, text = found[0]
    is_number = text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS
    return stickiness(int(text) if is_number and len(found) == 1 else -1, _NAMES[name])


def stickiness(duration_ms: int, name: str = STICKY) -> Stickiness:
    """The value of a duration that a client wants. Raises `InvalidParam`."""
    if not is_valid_duration(duration_ms):
        raise InvalidParam(f"An event sticks for 0 to {MAX_DURATION_MS} milliseconds")
    return Stickiness(duration_ms, name)
