"""Erased users' events, as shown to users who were not in the room when they were sent.

The stored event, which members of that time continue to see, stays as it is.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
"""

from homeserver.rooms.events.stored_event import StoredEvent


def as_erased(stored: StoredEvent) -> StoredEvent:
    """A copy of an event that shows no more of it than if it had been redacted.

    It has the same nid and position, so it can replace the event wherever readers see it.
    """
    return StoredEvent(
        stored.event.redacted(),
        stored.event_nid,
        stored.position,
        stored.state_before,
        stored.state_after,
        stored_at=stored.stored_at,
        replaces=stored.replaces,
        redaction=stored.redaction,
        topological_depth=stored.topological_depth,
    )
