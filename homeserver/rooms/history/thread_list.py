"""The threads of a room, page by page: their roots, the one with the latest event first.

Spec: https://spec.matrix.org/v1.19/client-server-api/#querying-threads-in-a-room
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.relations import THREAD
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.aggregations import BundledAggregations
from homeserver.rooms.history.relation_pages import (
    DEFAULT_LIMIT,
    MAX_EXAMINED_EVENTS,
    MAX_LIMIT,
    RelationPage,
    place_beyond,
    place_of,
)
from homeserver.rooms.history.room_reader import ReadAccess, RoomReader
from homeserver.rooms.history.visibility import Visibility, VisibleEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import relations as storage
from homeserver.streams.tokens import END, topological_token


class ThreadList:
    """Finds the threads of rooms on behalf of users."""

    def __init__(
        self,
        db: Database,
        rooms: RoomRegistry,
        reader: RoomReader,
        visibility: Visibility,
        relations: BundledAggregations,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._reader = reader
        self._visibility = visibility
        self._relations = relations

    async def page(
        self,
        caller: Requester,
        room_id: str,
        *,
        include: Literal["all", "participated"],
        since: str | None,
        limit: int | None,
        ignored: frozenset[str],
    ) -> RelationPage:
        """The roots of a room's threads, the one with the latest event first.

        An ignored user's root is shown redacted. Raises `Forbidden`, and `InvalidParam` for an
        invalid token.
        """
        access = await self._reader.access(caller.user_id, room_id)
        place = END if since is None else await place_of(self._db, access.room, since)
        size = min(max(limit or DEFAULT_LIMIT, 1), MAX_LIMIT)
        found: list[VisibleEvent] = []
        looked_at = 0
        while looked_at < MAX_EXAMINED_EVENTS:
            rows = await self._db.run(
                storage.newest_threads, access.room.room_nid, place, access.until, size + 1
            )
            looked_at += len(rows)
            places = {root: (depth, position) for depth, position, root in rows}
            for seen in await self._roots(caller, access, list(places), ignored):
                if include == "all" or _takes_part(seen):
                    found.append(seen)
                    if len(found) > size:
                        last = places[found[-1].stored.event.event_id]
                        return RelationPage(found[:size], topological_token(last))
            if len(rows) <= size:
                return RelationPage(found, None)
            place = place_beyond((rows[-1][0], rows[-1][1]), backwards=True)
        return RelationPage(found, topological_token(place))

    async def _roots(
        self,
        caller: Requester,
        access: ReadAccess,
        event_ids: Sequence[str],
        ignored: frozenset[str],
    ) -> list[VisibleEvent]:
        """The roots of threads as the caller may see them, with the summaries of their threads."""
        room = access.room
        found = [await self._rooms.find_event(room, event_id) for event_id in event_ids]
        roots = [stored for stored in found if stored is not None and access.includes(stored)]
        seen = await self._visibility.visible(room, caller.user_id, roots)
        bundled = await self._relations.bundled(caller, ignored, seen)
        return [
            each._replace(stored=_redacted(each.stored))
            if each.stored.event.sender in ignored
            else each
            for each in bundled
            if each.relations is not None
        ]


class _Thread(msgspec.Struct):
    current_user_participated: bool


class _Aggregations(msgspec.Struct):
    thread: _Thread | None = msgspec.field(name=THREAD, default=None)


def _takes_part(root: VisibleEvent) -> bool:
    thread = msgspec.json.decode(root.relations or b"{}", type=_Aggregations).thread
    return thread is not None and thread.current_user_participated


def _redacted(stored: StoredEvent) -> StoredEvent:
    return StoredEvent(
        stored.event.redacted(),
        stored.event_nid,
        stored.position,
        stored.state_before,
        stored.state_after,
        stored_at=stored.stored_at,
        topological_depth=stored.topological_depth,
    )
