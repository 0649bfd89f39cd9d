"""Self-destructing messages: `org.matrix.self_destruct_after` in the content, a time in ms.

Proposal: https://github.com/matrix-org/matrix-spec-proposals/pull/2228
"""

from typing import Final

from homeserver.protocol.events import Event

SELF_DESTRUCT_AFTER: Final = "org.matrix.self_destruct_after"
MAX_TIME = 2**53 - 1  # ms


def expiry_of(event: Event) -> int | None:
    """When the content of an event is to be deleted, in ms; `None` for most. State never is."""
    due = event.content.get(SELF_DESTRUCT_AFTER)
    if event.state_key is not None or not isinstance(due, int) or isinstance(due, bool):
        return None
    return due if 0 <= due <= MAX_TIME else None
