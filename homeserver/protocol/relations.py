"""Relations of an event to another one in its room, as `m.relates_to` describes.

The event with `m.relates_to` is the child, the one that it names the parent; a parent does not
refer to its children. A relation that does not match the schema, or breaks a rule that can be
checked on the child alone, is ignored. Rich replies are not relations: they have no `rel_type`.

Spec: https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events
"""

from collections.abc import Mapping
from typing import Any, Final, TypeGuard

import msgspec

from homeserver.protocol.event_types import ENCRYPTED
from homeserver.protocol.events import Event

REPLACE: Final = "m.replace"
THREAD: Final = "m.thread"
REFERENCE: Final = "m.reference"
ANNOTATION: Final = "m.annotation"

MAX_BYTES: Final = 255  # of an event id, and of a namespaced identifier


class Relation(msgspec.Struct, frozen=True):
    """A child's relation: its parent's event id, the relation type, and an annotation's key."""

    parent_id: str
    rel_type: str
    key: str | None = None


def relation_of(event: Event) -> Relation | None:
    """The relation of an event, if it has a valid one."""
    return relation_in(event.type, event.state_key, event.content)


def relation_in(
    event_type: str, state_key: str | None, content: Mapping[str, Any]
) -> Relation | None:
    """The relation of an event that is yet to be created."""
    relates_to = content.get("m.relates_to")
    if not isinstance(relates_to, dict):
        return None
    parent_id, rel_type = relates_to.get("event_id"), relates_to.get("rel_type")
    if not (_is_text(parent_id) and _is_text(rel_type)):
        return None
    if rel_type == REPLACE and not _may_replace(event_type, state_key, content):
        return None
    if rel_type == ANNOTATION and state_key is not None:
        # A replacement of a reaction is not a second reaction, so it must not be counted.
        return None
    key = relates_to.get("key") if rel_type == ANNOTATION else None
    if not isinstance(key, str) or "\0" in key:
        key = None
    return Relation(parent_id, rel_type, key)


def _is_text(value: object) -> TypeGuard[str]:
    """Whether a value is a string that can be an identifier."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_BYTES
        and len(value.encode()) <= MAX_BYTES
        and "\0" not in value
    )


def _may_replace(event_type: str, state_key: str | None, content: Mapping[str, Any]) -> bool:
    """Whether an edit is valid by itself; an encrypted one hides its new content from servers.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events
    """
    if state_key is not None:
        return False
    return event_type == ENCRYPTED or isinstance(content.get("m.new_content"), dict)
