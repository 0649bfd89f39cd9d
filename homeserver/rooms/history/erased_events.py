"""Erased users' events, as those see them who were not in the room when they were sent.

The event that is stored, and that members of that time go on seeing, stays as it is.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
"""

from homeserver.rooms.events.stored_event import StoredEvent


def as_erased(stored: StoredEvent) -> StoredEvent:
    """A copy of an event that shows no more of it than if it had been redacted.

    It has the same numbers, so it can stand for the event wherever readers see it.
    """
    return StoredEvent(
        stored.event.redacted(),
        stored.event_nid,
        stored.position,
        stored.state_before,
        stored.state_after,
        replaces=stored.replaces,
        redaction=stored.redaction,
        height=stored.topological_depth,
    )
