"""The history of rooms: its pages, and the context of one event.

Pages are in topological order, by (topological depth, position), so that an event that arrives late
is in its place. A token is a place between two events of that order; a token of `/sync` bounds the
positions of the events instead, as earlier events may be deeper or less deep than later ones. Where
this server lacks history, a page backfills it first. A page examines a bounded number of events:
where a filter or the history visibility leaves few of them, it ends early, with a token to continue
from.

Spec: https://spec.matrix.org/v1.19/client-server-api/#pagination
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec.structs import replace

from homeserver.protocol.errors import NotFound
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.filters import RoomEventFilter
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.room_reader import ReadAccess, RoomReader
from homeserver.rooms.history.timeline_segments import (
    Depths,
    TimelineSegment,
    extremities_reached,
    from_memory,
    is_extremity_between,
    just_before,
    newest_in_memory,
    place_beyond,
    place_of,
    split_at_extremities,
)
from homeserver.rooms.history.visibility import Visibility, VisibleEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import event_pages
from homeserver.streams.positions import MAX_POSITION
from homeserver.streams.tokens import START, Place, parse_history_token, topological_token

DEFAULT_LIMIT = 10
MAX_LIMIT = 500  # events of a response
MAX_EXAMINED_EVENTS = 1_000  # events examined for one response
BATCH_SIZE = 50  # events read together, at least
MAX_FILLS = 5  # backfills for one page
FILL_EVENTS = 100  # events of each; they come from the far end of what is missing


class BackfillPort(Protocol):
    """Fetches the history that this server lacks from other servers."""

    async def fill(self, room: Room, depths: Depths, limit: int) -> bool:
        """Fetch events before the backward extremities at these depths; return whether any came."""


class PageRequest(msgspec.Struct, frozen=True):
    """A requested part of a room's history.

    `since` and `to` are tokens; without `since` the page starts at the end of the history, or with
    `backwards` false at its beginning. Events of `ignored` users are left out, except state events.
    """

    backwards: bool
    since: str | None = None
    to: str | None = None
    limit: int | None = None
    event_filter: RoomEventFilter = msgspec.field(default_factory=RoomEventFilter)
    ignored: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """The maximum number of events of the page."""
        if self.limit is None:
            return self.event_filter.limit_or(DEFAULT_LIMIT, MAX_LIMIT)
        return min(self.limit, MAX_LIMIT)


class Page(msgspec.Struct, frozen=True):
    """A page: `end` is the token to continue from, `None` if nothing was found and nothing is left.

    A full page, or one at the end, has a token without looking further: the next page is empty
    then.

    `state` are the member events of the senders, if the filter requests lazy loading.
    """

    start: str
    end: str | None
    chunk: Sequence[VisibleEvent]
    state: Sequence[StoredEvent]


class Context(msgspec.Struct, frozen=True):
    """An event with the events before it, newest first, and after it, oldest first."""

    event: VisibleEvent
    before: Sequence[VisibleEvent]
    after: Sequence[VisibleEvent]
    start: str
    end: str
    state: Sequence[StoredEvent]


class _Walk(msgspec.Struct, frozen=True):
    """The events found, the place where the walk ended, and whether nothing is left after that."""

    seen: list[VisibleEvent]
    place: Place
    exhausted: bool


class History:
    """Reads the history of rooms on behalf of users."""

    def __init__(
        self,
        db: Database,
        rooms: RoomRegistry,
        reader: RoomReader,
        visibility: Visibility,
        backfill: BackfillPort,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._reader = reader
        self._visibility = visibility
        self._backfill = backfill

    async def page(self, user_id: str, room_id: str, request: PageRequest) -> Page:
        """A page of the history. Raises `Forbidden`, and `InvalidParam` for an invalid token."""
        access = await self._reader.access(user_id, room_id)
        segment = await self._segment(access, request)
        walk = await self._walk(access, request, segment, request.size)
        ended = walk.exhausted and not walk.seen
        upto = segment.upto if segment.upto < access.until else None
        above = None if request.backwards or segment.above < 0 else segment.above
        return Page(
            request.since or topological_token(segment.start),
            None if ended else topological_token(walk.place, upto, above),
            walk.seen,
            await self._senders_state(access.room, request.event_filter, walk.seen),
        )

    async def context(
        self, user_id: str, room_id: str, event_id: str, request: PageRequest
    ) -> Context:
        """The events around an event; direction and tokens of `request` are ignored.

        Raises `Forbidden` if the user may not read the room, `NotFound` if they may not see the
        event.
        """
        access = await self._reader.access(user_id, room_id)
        event = await self._reader.event(user_id, room_id, event_id)
        half = request.size // 2
        around = await self.around(access, event, half, request.size - half, request)
        state = await self._context_state(
            access.room, request.event_filter, event, around.before, around.after
        )
        return replace(around, state=state)

    async def around(
        self,
        access: ReadAccess,
        event: VisibleEvent,
        before_limit: int,
        after_limit: int,
        request: PageRequest,
    ) -> Context:
        """So many events before and after a visible one, without the state; else as `context`."""
        place = place_of(event.stored)
        if place is None:
            raise NotFound("The event is in no timeline")
        last, upto = await self._last_place(access), access.until
        back, forth = replace(request, backwards=True), replace(request, backwards=False)
        past = TimelineSegment(just_before(place), START, upto=upto)
        future = TimelineSegment(place, last, upto=upto)
        before = await self._walk(access, back, past, before_limit, is_page=False)
        after = await self._walk(access, forth, future, after_limit, is_page=False)
        start, end = topological_token(before.place), topological_token(after.place)
        return Context(event, before.seen, after.seen, start, end, [])

    async def _walk(
        self,
        access: ReadAccess,
        request: PageRequest,
        segment: TimelineSegment,
        limit: int,
        *,
        is_page: bool = True,
    ) -> _Walk:
        """Up to `limit` events that the user may see and that pass the filter, along a segment.

        It ends before a backward extremity, since events on both sides of one are not neighbours,
        unless it is a page that would be empty.
        """
        seen: list[VisibleEvent] = []
        place, looked_at = segment.start, 0
        if limit <= 0 or not request.event_filter.matches_room(access.room.room_id):
            return _Walk(seen, place, exhausted=limit > 0)
        size = limit if request.event_filter.is_default else max(limit, BATCH_SIZE)
        while looked_at < MAX_EXAMINED_EVENTS:
            rest = replace(segment, start=place)
            chunk = await self._next(access.room, rest, size, request.backwards)
            looked_at += len(chunk)
            for is_after_gap, run in split_at_extremities(access.room, place, chunk):
                if is_after_gap and (seen or not is_page):
                    return _Walk(seen, place, exhausted=False)
                seen += await self._seen(access, request, run)
                if len(seen) > limit:
                    del seen[limit:]
                    place = place_beyond(seen[-1].stored, request.backwards)
                    return _Walk(seen, place, exhausted=False)
                if run:
                    place = place_beyond(run[-1], request.backwards)
            if len(chunk) < size:
                return _Walk(seen, place, exhausted=True)
            if len(seen) == limit:
                break
        return _Walk(seen, place, exhausted=False)

    async def _seen(
        self, access: ReadAccess, request: PageRequest, events: Sequence[StoredEvent]
    ) -> list[VisibleEvent]:
        """Those of the events that the user may see and that pass the filter."""
        reachable = [stored for stored in events if access.includes(stored)]
        visible = await self._visibility.visible(access.room, access.user_id, reachable)
        return [event for event in visible if _is_wanted(request, event.stored)]

    async def _next(
        self, room: Room, segment: TimelineSegment, size: int, backwards: bool
    ) -> list[StoredEvent]:
        """The next events along a segment, nearest first.

        Missing events are backfilled: backwards until some of them are here, forwards, where the
        next ones come last, until all are.
        """
        in_memory = from_memory(room, segment, size, backwards)
        if in_memory is not None:
            return in_memory
        rows = await self._rows(room, segment, size, backwards)
        for _ in range(MAX_FILLS):
            reached = extremities_reached(room, segment, rows, size, backwards)
            if reached is None:
                break
            if not await self._backfill.fill(
                room, reached, max(size, BATCH_SIZE if backwards else FILL_EVENTS)
            ):
                break
            rows = await self._rows(room, segment, size, backwards)
            if (
                backwards
                and rows
                and not is_extremity_between(
                    sorted(room.backward_extremities.values()), segment.start[0], rows[0][0]
                )
            ):
                break
        event_nids = [event for _, _, event in rows]
        return await self._rooms.load_events_in_order(room, event_nids)

    async def _rows(
        self, room: Room, segment: TimelineSegment, size: int, backwards: bool
    ) -> list[tuple[int, int, int]]:
        return await self._db.run(
            event_pages.page,
            room.room_nid,
            segment.start,
            segment.bound,
            size,
            backwards=backwards,
            above=segment.above,
            upto=segment.upto,
            past_above=segment.past_above,
        )

    async def _segment(self, access: ReadAccess, request: PageRequest) -> TimelineSegment:
        """The segment of a request, within what the user may reach."""
        room, backwards = access.room, request.backwards
        last = await self._last_place(access)
        start, bound = (last, START) if backwards else (START, last)
        above, upto, past_above = -MAX_POSITION, access.until, MAX_POSITION
        if request.since is not None:
            token = parse_history_token(request.since, room.room_nid)
            since = token.place
            if token.upto is not None:
                upto = min(upto, token.upto)
            if not isinstance(since, int):
                start = min(since, last)
                if token.above is not None and not backwards:
                    above, past_above = token.above, await self._depth_at(room, token.above)
            elif backwards:
                upto = min(upto, since)
                start = max(await self._end_of(room, upto), await self._above_missing(room, since))
                start = min(start, last)
            else:
                above, past_above = since, await self._depth_at(room, since)
                start = min(await self._beginning_after(room, since), (past_above, MAX_POSITION))
        if request.to is not None:
            to = parse_history_token(request.to, room.room_nid).place
            if not isinstance(to, int):
                bound = max(bound, to) if backwards else min(bound, to)
            elif backwards:
                above = to
            else:
                upto = min(upto, to)
        return TimelineSegment(start, bound, above, upto, past_above)

    async def _last_place(self, access: ReadAccess) -> Place:
        """The end of the history for the user."""
        return await self._end_of(access.room, min(access.until, access.room.last_position))

    async def _depth_at(self, room: Room, position: int) -> int:
        """The greatest depth of the events up to a position; endless before the first of them."""
        return (await self._end_of(room, position))[0] or MAX_POSITION

    async def _end_of(self, room: Room, position: int) -> Place:
        """A place after all events up to a position."""
        newest = newest_in_memory(room, position)
        if newest is not None and (newest.position or 0) > room.disordered_at:
            return place_beyond(newest, backwards=False)
        return await self._db.run(event_pages.greatest_depth, room.room_nid, position), position

    async def _above_missing(self, room: Room, position: int) -> Place:
        """A place after all missing and imported events between a position and the first event
        after it.
        """
        if position >= room.last_position:
            return START
        if position >= room.timeline_from:
            later = (each for each in room.timeline if (each.position or 0) > position)
            depth = next((each.topological_depth for each in later), 0)
        else:
            depth = await self._db.run(event_pages.depth_after, room.room_nid, position)
        # Imported events have the depth of the event after them.
        return depth, 0

    async def _beginning_after(self, room: Room, position: int) -> Place:
        """A place before all events above a position."""
        if position >= max(room.timeline_from, room.disordered_at):
            for stored in room.timeline:
                if (stored.position or 0) > position:
                    return stored.topological_depth, -MAX_POSITION
        least = await self._db.run(event_pages.least_depth, room.room_nid, position)
        return START if least is None else (least, -MAX_POSITION)

    async def _senders_state(
        self, room: Room, event_filter: RoomEventFilter, seen: Sequence[VisibleEvent]
    ) -> list[StoredEvent]:
        if not event_filter.lazy_load_members or not seen:
            return []
        senders = dict.fromkeys(event.stored.event.sender for event in seen)
        return await self._reader.member_events(room, _newest_state(seen), senders)

    async def _context_state(
        self,
        room: Room,
        event_filter: RoomEventFilter,
        event: VisibleEvent,
        before: Sequence[VisibleEvent],
        after: Sequence[VisibleEvent],
    ) -> list[StoredEvent]:
        """The state at the last event; with lazy loading only the members who sent one of the
        events.
        """
        last = after[-1] if after else event
        senders = None
        if event_filter.lazy_load_members:
            senders = {seen.stored.event.sender for seen in (event, *before, *after)}
        state = await self._reader.state_at(room, last.stored.state_after, members=senders)
        if senders is not None:
            # Senders of imported events may have joined later.
            late = senders.difference(stored.event.state_key or "" for stored in state)
            root = _newest_state((event, *before, *after))
            state += await self._reader.member_events(room, root, sorted(late))
        return [
            stored
            for stored in state
            if (senders is not None and is_member_event(stored.event))
            or event_filter.matches(stored.event.type, stored.event.sender, stored.event.content)
        ]


def _newest_state(seen: Sequence[VisibleEvent]) -> bytes:
    """The root of the newest state at some events: in it, every sender has become a member."""
    return max((each.stored for each in seen), key=lambda each: each.visible_since).state_after


def _is_wanted(request: PageRequest, stored: StoredEvent) -> bool:
    event = stored.event
    if event.sender in request.ignored and event.state_key is None:
        return False
    return request.event_filter.matches(event.type, event.sender, event.content)
