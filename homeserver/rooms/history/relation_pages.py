"""The children of an event, page by page, and the threads of a room.

Pages are in topological order, as those of the room's history, and share its tokens.

Spec: https://spec.matrix.org/v1.19/client-server-api/#relationships-api
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.relations import THREAD
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
MAX_EXAMINED_EVENTS = 1_000  # events that are looked at for one answer
LEVELS = 3  # of relations that are followed with `recurse`


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildrenRequest:
    """Which children are wanted, and which page of them. `since` and `to` are tokens."""

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
        """Most events of the page."""
        return min(max(self.limit or DEFAULT_LIMIT, 1), MAX_LIMIT)


@dataclass(frozen=True, slots=True)
class RelationPage:
    """Some events; `end` is the token to go on from, `None` where there are no more."""

    chunk: Sequence[VisibleEvent]
    end: str | None


class RelationPages:
    """Finds children and threads on behalf of users."""

    def __init__(
        self,
        db: Database,
        names: Names,
        rooms: RoomRegistry,
        reading: RoomReader,
        visibility: Visibility,
        relations: BundledAggregations,
    ) -> None:
        self._db = db
        self._names = names
        self._rooms = rooms
        self._reading = reading
        self._visibility = visibility
        self._relations = relations

    async def children(
        self, caller: Requester, room_id: str, event_id: str, request: ChildrenRequest
    ) -> RelationPage:
        """A page of the children of an event, with their aggregations.

        Raises `NotFound` where the caller may not see the event, `InvalidParam` for what is no
        token.
        """
        await self._reading.event(caller.user_id, room_id, event_id)
        access = await self._reading.access(caller.user_id, room_id)
        wanted = await self._query(access.room, event_id, request)
        first, last = (END, START) if request.backwards else (START, END)
        place = first if request.since is None else await self._place(access.room, request.since)
        bound = last if request.to is None else await self._place(access.room, request.to)
        if wanted is None:
            return RelationPage([], None)
        seen, end = await self._walk(access, request, wanted, place, bound)
        chunk = await self._relations.bundled(caller, request.ignored, seen)
        return RelationPage(chunk, end)

    async def threads(
        self,
        caller: Requester,
        room_id: str,
        *,
        include: Literal["all", "participated"],
        since: str | None,
        limit: int | None,
        ignored: frozenset[str],
    ) -> RelationPage:
        """The roots of a room's threads, those first that somebody wrote in last.

        Of an ignored user's root only a redacted form is shown. Raises `Forbidden`, and
        `InvalidParam` for what is no token.
        """
        access = await self._reading.access(caller.user_id, room_id)
        place = END if since is None else await self._place(access.room, since)
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
            place = _behind((rows[-1][0], rows[-1][1]), backwards=True)
        return RelationPage(found, topological_token(place))

    async def _walk(
        self,
        access: ReadAccess,
        request: ChildrenRequest,
        wanted: storage.ChildrenQuery,
        place: Place,
        bound: Place,
    ) -> tuple[list[VisibleEvent], str | None]:
        """The next children that the caller may see, and where to go on."""
        room, seen, looked_at, size = access.room, list[VisibleEvent](), 0, request.size
        while looked_at < MAX_EXAMINED_EVENTS:
            rows = await self._db.run(storage.children, wanted, place, bound, size + 1)
            looked_at += len(rows)
            events = await self._load(room, [number for _, _, number in rows], access)
            visible = await self._visibility.visible(room, access.user_id, events)
            seen += [each for each in visible if each.stored.event.sender not in request.ignored]
            if len(seen) > size:
                last = seen[size - 1].stored
                place = (last.topological_depth, last.position or 0)
                return seen[:size], topological_token(_behind(place, request.backwards))
            if len(rows) <= size:
                return seen, None
            place = _behind((rows[-1][0], rows[-1][1]), request.backwards)
        return seen, topological_token(place)

    async def _load(
        self, room: Room, numbers: Sequence[int], access: ReadAccess
    ) -> list[StoredEvent]:
        events = await self._rooms.load_events_in_order(room, numbers)
        return [stored for stored in events if access.includes(stored)]

    async def _query(
        self, room: Room, event_id: str, request: ChildrenRequest
    ) -> storage.ChildrenQuery | None:
        """What to look for; `None` where no event of this type is known, and so none is found."""
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

    async def _place(self, room: Room, token: str) -> Place:
        place = parse_room_token(token)
        if not isinstance(place, int):
            return place
        depth = await self._db.run(greatest_depth, room.room_nid, place)
        return (depth or 0, place)

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
            replace(each, stored=_redacted(each.stored))
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
        height=stored.topological_depth,
    )


def _behind(place: Place, backwards: bool) -> Place:
    """The place at which a walk goes on that has come past an event at this one."""
    return (place[0], place[1] - 1) if backwards else place
