"""Rows of relations: they go with the event, and go away when it is redacted.

Spec: https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events
"""

from homeserver.protocol.relations import relation_of
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.storage.database.batch import Row
from homeserver.storage.rooms.relations import DELETE_RELATION, INSERT_RELATION


def relation_rows(stored: StoredEvent, room: int, type_nid: int, sender_nid: int) -> list[Row]:
    """What is stored of the relation of a new event of a timeline, if it has one."""
    event = stored.event
    if stored.position is None or (relation := relation_of(event)) is None:
        return []
    row = INSERT_RELATION.row(
        stored.event_nid,
        room,
        relation.parent_id,
        relation.rel_type,
        relation.key,
        event.event_id,
        type_nid,
        sender_nid,
        stored.topological_depth,
        stored.position,
        event.origin_server_ts,
    )
    return [row]


def rows_of_redaction(redacted: StoredEvent) -> list[Row]:
    """How the relation of an event ends that is being redacted.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events
    """
    if relation_of(redacted.event) is None:
        return []
    return [DELETE_RELATION.row(redacted.event_nid)]
