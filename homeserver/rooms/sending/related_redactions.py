"""Redactions of related events: with an event, its edits, its reactions or its thread.

Only children of the event itself are redacted, and only those that the user may redact. A child
that arrives later is not.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/3912
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Forbidden, InvalidParam
from homeserver.protocol.event_types import REDACTION
from homeserver.rooms.events.event_draft import EventDraft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.relations import ChildrenQuery, children
from homeserver.streams.tokens import END, START

ANY = "*"
MAX_TYPES = 20
MAX_RELATED = 1_000  # children that a request examines, newest first of each type
PAGE = 100


def check_relation_types(rel_types: Sequence[str]) -> None:
    """Raise `InvalidParam` for more relation types than one request may have."""
    if len(rel_types) > MAX_TYPES:
        raise InvalidParam(f"A redaction has at most {MAX_TYPES} relation types")


class RelatedRedactions:
    """Redacts the children of an event on behalf of a user."""

    def __init__(self, db: Database, rooms: RoomRegistry) -> None:
        self._db = db
        self._rooms = rooms

    async def redact(
        self,
        caller: Requester,
        room_id: str,
        event_id: str,
        content: dict[str, Any],
        rel_types: Sequence[str],
    ) -> None:
        """Redact the children with these relation types, `*` for any.

        `content` is that of each redaction. A request that is repeated redacts what is left.
        """
        room = await self._rooms.get(room_id)
        async with self._rooms.writing(room_id) as writer:
            async for child in self._children(room, event_id, rel_types):
                if caller.is_suspended and child.event.sender != caller.user_id:
                    continue
                draft = EventDraft(
                    REDACTION,
                    caller.user_id,
                    content,
                    redacts=child.event.event_id,
                    target=child,
                )
                try:
                    await writer.send(draft)
                except Forbidden:
                    continue  # others may redact it

    async def _children(
        self, room: Room, event_id: str, rel_types: Sequence[str]
    ) -> AsyncIterator[StoredEvent]:
        left = MAX_RELATED
        for rel_type in [None] if ANY in rel_types else dict.fromkeys(rel_types):
            query = ChildrenQuery(room=room.room_nid, parent_id=event_id, rel_type=rel_type)
            place = END
            while left > 0:
                rows = await self._db.run(children, query, place, START, PAGE)
                for child in await self._rooms.load_events_in_order(room, [row[2] for row in rows]):
                    yield child
                left -= len(rows)
                if len(rows) < PAGE:
                    break
                place = rows[-1][0], rows[-1][1] - 1
