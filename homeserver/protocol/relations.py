"""Relations: that an event belongs to another one of its room, as `m.relates_to` says.

The event that says so is the child, the one it names the parent; a parent knows nothing of its
children. What does not match the schema, or breaks a rule that can be seen from the child alone, is
no relation and is ignored. Rich replies are none: they have no `rel_type`.

Spec: https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from homeserver.protocol.event_types import ENCRYPTED
from homeserver.protocol.events import Event

REPLACE: Final = "m.replace"
THREAD: Final = "m.thread"
REFERENCE: Final = "m.reference"
ANNOTATION: Final = "m.annotation"

MAX_BYTES: Final = 255  # of an event id, and of a namespaced identifier


@dataclass(frozen=True, slots=True)
class Relation:
    """What a child says: its parent's event id, the relation's type, and an annotation's key."""

    parent_id: str
    rel_type: str
    key: str | None = None


def relation_of(event: Event) -> Relation | None:
    """The relation of an event, if it has a valid one."""
    return relation_in(event.type, event.state_key, event.content)


def relation_in(
    event_type: str, state_key: str | None, content: Mapping[str, Any]
) -> Relation | None:
    """The same for an event that is yet to be made."""
    relates_to = content.get("m.relates_to")
    if not isinstance(relates_to, dict):
        return None
    parent_id, rel_type = relates_to.get("event_id"), relates_to.get("rel_type")
    if not (_is_text(parent_id) and _is_text(rel_type)):
        return None
    if rel_type == REPLACE and not _may_replace(event_type, state_key, content):
        return None
    if rel_type == ANNOTATION and state_key is not None:
        # One that replaces another is no second reaction, so that none is counted.
        return None
    key = relates_to.get("key") if rel_type == ANNOTATION else None
    if not isinstance(key, str) or "\0" in key:
        key = None
    return Relation(parent_id, rel_type, key)


def _is_text(value: object) -> TypeGuard[str]:
    """Whether it is a text that an identifier can be."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_BYTES
        and len(value.encode()) <= MAX_BYTES
        and "\0" not in value
    )


def _may_replace(event_type: str, state_key: str | None, content: Mapping[str, Any]) -> bool:
    """What is asked of every edit; an encrypted one has its new content where nobody sees it.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events
    """
    if state_key is not None:
        return False
    return event_type == ENCRYPTED or isinstance(content.get("m.new_content"), dict)
