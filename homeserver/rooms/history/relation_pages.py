"""The children of an event, page by page.

Pages are in topological order, like those of the room's history, and use the same tokens.

Spec: https://spec.matrix.org/v1.19/client-server-api/#relationships-api
"""

from collections.abc import Sequence

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.aggregations import BundledAggregations
from homeserver.rooms.history.room_reader import ReadAccess, RoomReader
from homeserver.rooms.history.visibility import Visibility, VisibleEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import relations as storage
from homeserver.storage.rooms.event_pages import greatest_depth
from homeserver.storage.rooms.names import Names
from homeserver.streams.tokens import END, START, Place, parse_room_token, topological_token

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
MAX_EXAMINED_EVENTS = 1_000  # events examined for one response
LEVELS = 3  # of relations, with `recurse`


class ChildrenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The requested children, and the page of them. `since` and `to` are tokens."""

    rel_type: str | None = None
    event_type: str | None = None
    recurse: bool = False
    backwards: bool = True
    since: str | None = None
    to: str | None = None
    limit: int | None = None
    ignored: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """The maximum number of events of the page."""
        return min(max(self.limit or DEFAULT_LIMIT, 1), MAX_LIMIT)


class RelationPage(msgspec.Struct, frozen=True):
    """Some events; `end` is the token to continue from, `None` if there are no more."""

    chunk: Sequence[VisibleEvent]
    end: str | None


class RelationPages:
    """Finds children on behalf of users."""

    def __init__(
        self,
        db: Database,
        names: Names,
        rooms: RoomRegistry,
        reader: RoomReader,
        visibility: Visibility,
        relations: BundledAggregations,
    ) -> None:
        self._db = db
        self._names = names
        self._rooms = rooms
        self._reader = reader
        self._visibility = visibility
        self._relations = relations

    async def children(
        self, caller: Requester, room_id: str, event_id: str, request: ChildrenRequest
    ) -> RelationPage:
        """A page of the children of an event, with their aggregations.

        Raises `NotFound` if the caller may not see the event, `InvalidParam` for an invalid token.
        """
        await self._reader.event(caller.user_id, room_id, event_id)
        access = await self._reader.access(caller.user_id, room_id)
        query = await self._query(access.room, event_id, request)
        first, last = (END, START) if request.backwards else (START, END)
        place = (
            first if request.since is None else await place_of(self._db, access.room, request.since)
        )
        bound = last if request.to is None else await place_of(self._db, access.room, request.to)
        if query is None:
            return RelationPage([], None)
        seen, end = await self._walk(access, request, query, place, bound)
        chunk = await self._relations.bundled(caller, request.ignored, seen)
        return RelationPage(chunk, end)

    async def _walk(
        self,
        access: ReadAccess,
        request: ChildrenRequest,
        query: storage.ChildrenQuery,
        place: Place,
        bound: Place,
    ) -> tuple[list[VisibleEvent], str | None]:
        """The next children that the caller may see, and the token to continue from."""
        room, seen, looked_at, size = access.room, list[VisibleEvent](), 0, request.size
        while looked_at < MAX_EXAMINED_EVENTS:
            rows = await self._db.run(storage.children, query, place, bound, size + 1)
            looked_at += len(rows)
            events = await self._load(room, [event_nid for _, _, event_nid in rows], access)
            visible = await self._visibility.visible(room, access.user_id, events)
            seen += [each for each in visible if each.stored.event.sender not in request.ignored]
            if len(seen) > size:
                last = seen[size - 1].stored
                place = (last.topological_depth, last.position or 0)
                return seen[:size], topological_token(place_beyond(place, request.backwards))
            if len(rows) <= size:
                return seen, None
            place = place_beyond((rows[-1][0], rows[-1][1]), request.backwards)
        return seen, topological_token(place)

    async def _load(
        self, room: Room, event_nids: Sequence[int], access: ReadAccess
    ) -> list[StoredEvent]:
        events = await self._rooms.load_events_in_order(room, event_nids)
        return [stored for stored in events if access.includes(stored)]

    async def _query(
        self, room: Room, event_id: str, request: ChildrenRequest
    ) -> storage.ChildrenQuery | None:
        """The query for the database; `None` if no event of this type is known, and so none is
        found.
        """
        event_type = None
        if request.event_type is not None:
            event_type = await self._names.find_nid(request.event_type)
            if event_type is None:
                return None
        return storage.ChildrenQuery(
            room=room.room_nid,
            parent_id=event_id,
            rel_type=request.rel_type,
            type=event_type,
            levels=LEVELS if request.recurse else 1,
            backwards=request.backwards,
        )


async def place_of(db: Database, room: Room, token: str) -> Place:
    """The place in the room's history that a token names. Raises `InvalidParam`."""
    place = parse_room_token(token, room.room_nid)
    if not isinstance(place, int):
        return place
    depth = await db.run(greatest_depth, room.room_nid, place)
    return (depth or 0, place)


def place_beyond(place: Place, backwards: bool) -> Place:
    """The place from which a walk continues that has passed an event at this one."""
    return (place[0], place[1] - 1) if backwards else place
