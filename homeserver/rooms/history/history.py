"""History: the pages of a room's past, and the surroundings of one event.

Pages are in topological order, by (height, position), so that what arrives late stands where it
belongs. A token is a place between two events of that order; a token of `/sync` bounds the
positions that are shown instead, as what came before it may stand before or behind what came after.
Where this server does not have the past, a page asks for it first. A page looks at a bounded number
of events: where a filter or the history visibility leaves few of them, it ends early, with a token
to go on from.

Spec: https://spec.matrix.org/v1.19/client-server-api/#pagination
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from homeserver.protocol.errors import NotFound
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.filters import RoomEventFilter
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.room_reader import ReadAccess, RoomReader
from homeserver.rooms.history.timeline_segments import (
    Depths,
    TimelineSegment,
    behind,
    from_memory,
    gaps_reached,
    is_gap_between,
    just_before,
    place_of,
    split_at_gaps,
)
from homeserver.rooms.history.visibility import Visibility, VisibleEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import event_pages
from homeserver.streams.log import MAX_POSITION
from homeserver.streams.tokens import START, Place, parse_history_token, topological_token

DEFAULT_LIMIT = 10
MAX_LIMIT = 500  # events of an answer
MAX_EXAMINED_EVENTS = 1_000  # events that are looked at for one answer
BATCH_SIZE = 50  # events that are looked at together, at least
MAX_FILLS = 5  # times that the past is asked for which a page would leap over
FILL = 100  # events that are asked for each time; those before the far end of the gap come first


class BackfillPort(Protocol):
    """Where the past of rooms comes from that this server does not have."""

    async def fill(self, room: Room, depths: Depths, limit: int) -> bool:
        """Ask for events before the gaps that are at these depths; whether any came."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a room's history is wanted.

    `since` and `to` are tokens; without `since` the page starts at the end of the history, or with
    `backwards` false at its beginning. Events of `ignored` users are left out, their state aside.
    """

    backwards: bool
    since: str | None = None
    to: str | None = None
    limit: int | None = None
    wanted: RoomEventFilter = field(default_factory=RoomEventFilter)
    ignored: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Most events of the page."""
        if self.limit is None:
            return self.wanted.limit_or(DEFAULT_LIMIT, MAX_LIMIT)
        return min(self.limit, MAX_LIMIT)


@dataclass(frozen=True, slots=True)
class Page:
    """A page: `end` is the token to go on from, `None` where nothing was found and nothing is left.

    Nobody looks beyond a page that is full or has reached the end: the empty one after it tells.

    `state` are the member events of the senders, if the filter asks for lazy loading.
    """

    start: str
    end: str | None
    chunk: Sequence[VisibleEvent]
    state: Sequence[StoredEvent]


@dataclass(frozen=True, slots=True)
class Context:
    """An event with what happened before it, newest first, and after it, oldest first."""

    event: VisibleEvent
    before: Sequence[VisibleEvent]
    after: Sequence[VisibleEvent]
    start: str
    end: str
    state: Sequence[StoredEvent]


@dataclass(frozen=True, slots=True)
class _Walk:
    """What was found on the way, where it ended, and whether nothing is left behind that."""

    seen: list[VisibleEvent]
    place: Place
    exhausted: bool


class History:
    """Reads the history of rooms on behalf of users."""

    def __init__(
        self,
        db: Database,
        rooms: RoomRegistry,
        reading: RoomReader,
        visibility: Visibility,
        backfill: BackfillPort,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._reading = reading
        self._visibility = visibility
        self._backfill = backfill

    async def page(self, user_id: str, room_id: str, request: PageRequest) -> Page:
        """A page of the history. Raises `Forbidden`, and `InvalidParam` for what is no token."""
        access = await self._reading.access(user_id, room_id)
        stretch = await self._stretch(access, request)
        walk = await self._walk(access, request, stretch, request.size)
        ended = walk.exhausted and not walk.seen
        upto = stretch.upto if stretch.upto < access.until else None
        above = None if request.backwards or stretch.above < 0 else stretch.above
        return Page(
            request.since or topological_token(stretch.start),
            None if ended else topological_token(walk.place, upto, above),
            walk.seen,
            await self._senders_state(access.room, request.wanted, walk.seen),
        )

    async def context(
        self, user_id: str, room_id: str, event_id: str, request: PageRequest
    ) -> Context:
        """What happened around an event: of `request` all but direction and tokens counts.

        Raises `Forbidden` where the user may not read the room, `NotFound` where they may not see
        the event.
        """
        access = await self._reading.access(user_id, room_id)
        event = await self._reading.event(user_id, room_id, event_id)
        place = place_of(event.stored)
        if place is None:
            raise NotFound("The event stands in no timeline")
        half, last = request.size // 2, await self._last_place(access)
        back, forth = replace(request, backwards=True), replace(request, backwards=False)
        upto = access.until
        past = TimelineSegment(just_before(place), START, upto=upto)
        future = TimelineSegment(place, last, upto=upto)
        before = await self._walk(access, back, past, half, is_page=False)
        after = await self._walk(access, forth, future, request.size - half, is_page=False)
        return Context(
            event,
            before.seen,
            after.seen,
            topological_token(before.place),
            topological_token(after.place),
            await self._context_state(access.room, request.wanted, event, before.seen, after.seen),
        )

    async def _walk(
        self,
        access: ReadAccess,
        request: PageRequest,
        stretch: TimelineSegment,
        limit: int,
        *,
        is_page: bool = True,
    ) -> _Walk:
        """Up to `limit` events that the user may see and wants, along a stretch of the history.

        It ends before a gap, since what is on both sides of one must not be taken for neighbours,
        unless it is a page that would be empty.
        """
        seen: list[VisibleEvent] = []
        place, looked_at = stretch.start, 0
        if limit <= 0 or not request.wanted.matches_room(access.room.room_id):
            return _Walk(seen, place, exhausted=limit > 0)
        size = limit if request.wanted.is_default else max(limit, BATCH_SIZE)
        while looked_at < MAX_EXAMINED_EVENTS:
            rest = replace(stretch, start=place)
            chunk = await self._next(access.room, rest, size, request.backwards)
            looked_at += len(chunk)
            for is_behind_gap, run in split_at_gaps(access.room, place, chunk):
                if is_behind_gap and (seen or not is_page):
                    return _Walk(seen, place, exhausted=False)
                seen += await self._seen(access, request, run)
                if len(seen) > limit:
                    del seen[limit:]
                    place = behind(seen[-1].stored, request.backwards)
                    return _Walk(seen, place, exhausted=False)
                if run:
                    place = behind(run[-1], request.backwards)
            if len(chunk) < size:
                return _Walk(seen, place, exhausted=True)
            if len(seen) == limit:
                break
        return _Walk(seen, place, exhausted=False)

    async def _seen(
        self, access: ReadAccess, request: PageRequest, events: Sequence[StoredEvent]
    ) -> list[VisibleEvent]:
        """Those of the events that the user may see and wants."""
        reachable = [stored for stored in events if access.includes(stored)]
        visible = await self._visibility.visible(access.room, access.user_id, reachable)
        return [event for event in visible if _is_wanted(request, event.stored)]

    async def _next(
        self, room: Room, stretch: TimelineSegment, size: int, backwards: bool
    ) -> list[StoredEvent]:
        """The next events along a stretch, nearest first.

        Where something is missing on the way it is asked for: backwards until something of it is
        known, forwards, where what comes next comes last, until all of it is.
        """
        at_hand = from_memory(room, stretch, size, backwards)
        if at_hand is not None:
            return at_hand
        rows = await self._rows(room, stretch, size, backwards)
        for _ in range(MAX_FILLS):
            reached = gaps_reached(room, stretch, rows, size, backwards)
            if reached is None:
                break
            if not await self._backfill.fill(
                room, reached, max(size, BATCH_SIZE if backwards else FILL)
            ):
                break
            rows = await self._rows(room, stretch, size, backwards)
            if (
                backwards
                and rows
                and not is_gap_between(
                    sorted(room.backward_extremities.values()), stretch.start[0], rows[0][0]
                )
            ):
                break
        numbers = [event for _, _, event in rows]
        return await self._rooms.load_events_in_order(room, numbers)

    async def _rows(
        self, room: Room, stretch: TimelineSegment, size: int, backwards: bool
    ) -> list[tuple[int, int, int]]:
        return await self._db.run(
            event_pages.page,
            room.room_nid,
            stretch.start,
            stretch.bound,
            size,
            backwards=backwards,
            above=stretch.above,
            upto=stretch.upto,
            past_above=stretch.past_above,
        )

    async def _stretch(self, access: ReadAccess, request: PageRequest) -> TimelineSegment:
        """What a request asks for, within what the user may reach."""
        room, backwards = access.room, request.backwards
        last = await self._last_place(access)
        start, bound = (last, START) if backwards else (START, last)
        above, upto, past_above = -MAX_POSITION, access.until, MAX_POSITION
        if request.since is not None:
            token = parse_history_token(request.since)
            since = token.place
            if token.upto is not None:
                upto = min(upto, token.upto)
            if not isinstance(since, int):
                start = min(since, last)
                if token.above is not None and not backwards:
                    above, past_above = token.above, await self._height_at(room, token.above)
            elif backwards:
                upto = min(upto, since)
                start = max(await self._end_of(room, upto), await self._above_gap(room, since))
                start = min(start, last)
            else:
                above, past_above = since, await self._height_at(room, since)
                start = min(await self._beginning_after(room, since), (past_above, MAX_POSITION))
        if request.to is not None:
            to = parse_history_token(request.to).place
            if not isinstance(to, int):
                bound = max(bound, to) if backwards else min(bound, to)
            elif backwards:
                above = to
            else:
                upto = min(upto, to)
        return TimelineSegment(start, bound, above, upto, past_above)

    async def _last_place(self, access: ReadAccess) -> Place:
        """Where the history ends for the user."""
        return await self._end_of(access.room, min(access.until, access.room.last_position))

    async def _height_at(self, room: Room, position: int) -> int:
        """How high the events up to a position reach; endless before the first of them."""
        return (await self._end_of(room, position))[0] or MAX_POSITION

    async def _end_of(self, room: Room, position: int) -> Place:
        """A place behind all events up to a position."""
        newest = _newest(room, position)
        if newest is not None and (newest.position or 0) > room.disordered_at:
            return behind(newest, backwards=False)
        return await self._db.run(event_pages.greatest_depth, room.room_nid, position), position

    async def _above_gap(self, room: Room, position: int) -> Place:
        """A place behind what is missing between a position and the first event after it."""
        if position >= room.last_position:
            return START
        if position >= room.timeline_from:
            later = (each for each in room.timeline if (each.position or 0) > position)
            depth = next((each.topological_depth for each in later), 0)
        else:
            depth = await self._db.run(event_pages.depth_after, room.room_nid, position)
        return depth, -MAX_POSITION

    async def _beginning_after(self, room: Room, position: int) -> Place:
        """A place before all events above a position."""
        if position >= max(room.timeline_from, room.disordered_at):
            for stored in room.timeline:
                if (stored.position or 0) > position:
                    return stored.topological_depth, -MAX_POSITION
        least = await self._db.run(event_pages.least_depth, room.room_nid, position)
        return START if least is None else (least, -MAX_POSITION)

    async def _senders_state(
        self, room: Room, wanted: RoomEventFilter, seen: Sequence[VisibleEvent]
    ) -> list[StoredEvent]:
        if not wanted.lazy_load_members or not seen:
            return []
        senders = dict.fromkeys(event.stored.event.sender for event in seen)
        # By the newest of them, every sender has become a member.
        newest = max((event.stored for event in seen), key=lambda stored: stored.position or 0)
        return await self._reading.member_events(room, newest.state_after, senders)

    async def _context_state(
        self,
        room: Room,
        wanted: RoomEventFilter,
        event: VisibleEvent,
        before: Sequence[VisibleEvent],
        after: Sequence[VisibleEvent],
    ) -> list[StoredEvent]:
        """The state at the last event, with only the members who sent something if so wanted."""
        last = after[-1] if after else event
        senders = None
        if wanted.lazy_load_members:
            senders = {seen.stored.event.sender for seen in (event, *before, *after)}
        state = await self._reading.state_at(room, last.stored.state_after, members=senders)
        return [
            stored
            for stored in state
            if (senders is not None and is_member_event(stored.event))
            or wanted.matches(stored.event.type, stored.event.sender, stored.event.content)
        ]


def _is_wanted(request: PageRequest, stored: StoredEvent) -> bool:
    event = stored.event
    if event.sender in request.ignored and event.state_key is None:
        return False
    return request.wanted.matches(event.type, event.sender, event.content)


def _newest(room: Room, position: int) -> StoredEvent | None:
    """The newest event up to a position, if it is at hand."""
    for stored in reversed(room.timeline):
        if (stored.position or 0) <= position:
            return stored
    return None
