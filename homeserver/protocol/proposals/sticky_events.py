"""Sticky events: events that all members of a room get, wherever their timelines begin.

An event sticks for as long as its sender says, an hour at most. A redacted event does not stick,
since the member that says so is not protected from redaction.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4354
"""

from collections.abc import Mapping
from typing import Any, Final

from homeserver.protocol.events import Event
from homeserver.protocol.proposals.unstable_names import UNSTABLE_STICKY

MAX_DURATION_MS: Final = 3_600_000
STICKY: Final = "sticky"
STICKY_NAMES: Final = (STICKY, UNSTABLE_STICKY)
_MARK = b'sticky"'  # how both names end in canonical JSON, which escapes nothing in them


def is_valid_duration(duration: Any) -> bool:
    """Whether a client may have an event stick for so many milliseconds."""
    return type(duration) is int and 0 <= duration <= MAX_DURATION_MS


def sticky_duration(pdu: Mapping[str, Any]) -> int | None:
    """For how many milliseconds an event sticks; `None` for one that is not sticky.

    The proposal has the valid values end at an hour, and also says that what is longer counts as an
    hour: that is what happens to the events of other servers.
    """
    for name in STICKY_NAMES:
        if name in pdu:
            member = pdu[name]
            duration = member.get("duration_ms") if isinstance(member, dict) else None
            if type(duration) is int and duration >= 0:
                return min(duration, MAX_DURATION_MS)
    return None


def sticky_duration_of(event: Event) -> int | None:
    """`sticky_duration` of an event. Few are sticky, and the others are not decoded for this."""
    return sticky_duration(event.pdu) if _MARK in event.json else None


def sticky_until(event: Event, received_ms: int) -> int | None:
    """When an event stops sticking, in ms since the epoch; `None` for one that is not sticky.

    A sender whose clock, or claim, is ahead gains nothing: it begins when the event is received.
    """
    duration = sticky_duration_of(event)
    return None if duration is None else min(event.origin_server_ts, received_ms) + duration
