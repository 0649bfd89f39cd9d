"""What of an event is searched: the text of a message, a room's name, a room's topic.

An edit is searched by its new content. The body of an edit is only a fallback for clients that do
not know edits.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room_events
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from homeserver.protocol.event_types import MESSAGE, NAME, TOPIC
from homeserver.protocol.relations import REPLACE, relation_in

SEARCHABLE_TYPES = (MESSAGE, NAME, TOPIC)


class SearchKey(IntEnum):
    """What is searched, by the number that the index has for it."""

    BODY = 0
    NAME = 1
    TOPIC = 2


KEYS = {
    "content.body": SearchKey.BODY,
    "content.name": SearchKey.NAME,
    "content.topic": SearchKey.TOPIC,
}
TYPE_OF_KEY = {SearchKey.BODY: MESSAGE, SearchKey.NAME: NAME, SearchKey.TOPIC: TOPIC}


class SearchableText(NamedTuple):
    """The text by which an event is found."""

    key: SearchKey
    text: str


def searchable_text(
    event_type: str, state_key: str | None, content: Mapping[str, Any]
) -> SearchableText | None:
    """The text by which an event is found, if there is one."""
    if event_type == MESSAGE and state_key is None:
        text = _body(event_type, content)
        return SearchableText(SearchKey.BODY, text) if isinstance(text, str) and text else None
    if event_type == NAME and state_key == "":
        text = content.get("name")
        return SearchableText(SearchKey.NAME, text) if isinstance(text, str) and text else None
    if event_type == TOPIC and state_key == "":
        text = " ".join(dict.fromkeys(_topics(content)))
        return SearchableText(SearchKey.TOPIC, text) if text else None
    return None


def _body(event_type: str, content: Mapping[str, Any]) -> object:
    relation = relation_in(event_type, None, content)
    if relation is not None and relation.rel_type == REPLACE:
        return content["m.new_content"].get("body")
    return content.get("body")


def _topics(content: Mapping[str, Any]) -> Iterator[str]:
    """The topic, and its plain text representations.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#mroomtopic
    """
    topic = content.get("topic")
    if isinstance(topic, str):
        yield topic
    rich = content.get("m.topic")
    representations = rich.get("m.text") if isinstance(rich, dict) else None
    for each in representations if isinstance(representations, list) else ():
        if isinstance(each, dict) and each.get("mimetype", "text/plain") == "text/plain":
            body = each.get("body")
            if isinstance(body, str):
                yield body
