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
from homeserver.protocol.event_kinds import is_member_event, is_state
from homeserver.protocol.filters import RoomEventFilter
from homeserver.rooms.reading import Access, Reading
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.stored_event import StoredEvent
from homeserver.rooms.visibility import Seen, Visibility
from homeserver.storage import event_pages
from homeserver.storage.database import Database
from homeserver.streams.tokens import Place, parse_history_token, topological_token

DEFAULT_LIMIT = 10
MAX_LIMIT = 500  # events of an answer
MAX_LOOKED_AT = 1_000  # events that are looked at for one answer
CHUNK = 50  # events that are looked at together, at least
MAX_FILLS = 5  # times that the past is asked for which a page forwards would leap over
FILL = 100  # events that are asked for each time; those before the far end of the gap come first
FOREVER = 1 << 62
START: Place = (0, 0)

Depths = tuple[int, int]  # from the least to the greatest, both included


class Backfill(Protocol):
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
    chunk: Sequence[Seen]
    state: Sequence[StoredEvent]


@dataclass(frozen=True, slots=True)
class Context:
    """An event with what happened before it, newest first, and after it, oldest first."""

    event: Seen
    before: Sequence[Seen]
    after: Sequence[Seen]
    start: str
    end: str
    state: Sequence[StoredEvent]


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Part of a history: from one place to another, of events with above < position <= upto."""

    start: Place
    bound: Place
    above: int = -FOREVER
    upto: int = FOREVER


@dataclass(frozen=True, slots=True)
class _Walk:
    """What was found on the way, where it ended, and whether nothing is left behind that."""

    seen: list[Seen]
    place: Place
    exhausted: bool


class History:
    """Reads the history of rooms on behalf of users."""

    def __init__(
        self, db: Database, rooms: Rooms, reading: Reading, visibility: Visibility
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._reading = reading
        self._visibility = visibility
        self.backfill: Backfill | None = None

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
        place = _place_of(event.stored)
        if place is None:
            raise NotFound("The event stands in no timeline")
        half, last = request.size // 2, await self._last_place(access)
        back, forth = replace(request, backwards=True), replace(request, backwards=False)
        upto = access.until
        past = _Stretch(_just_before(place), START, upto=upto)
        future = _Stretch(place, last, upto=upto)
        before = await self._walk(access, back, past, half)
        after = await self._walk(access, forth, future, request.size - half)
        return Context(
            event,
            before.seen,
            after.seen,
            topological_token(before.place),
            topological_token(after.place),
            await self._context_state(access.room, request.wanted, event, before.seen, after.seen),
        )

    async def _walk(
        self, access: Access, request: PageRequest, stretch: _Stretch, limit: int
    ) -> _Walk:
        """Up to `limit` events that the user may see and wants, along a stretch of the history."""
        seen: list[Seen] = []
        place, looked_at = stretch.start, 0
        if limit <= 0 or not request.wanted.matches_room(access.room.room_id):
            return _Walk(seen, place, exhausted=limit > 0)
        size = limit if request.wanted.is_default else max(limit, CHUNK)
        while looked_at < MAX_LOOKED_AT:
            rest = replace(stretch, start=place)
            chunk = await self._next(access.room, rest, size, request.backwards)
            looked_at += len(chunk)
            reachable = [stored for stored in chunk if access.includes(stored)]
            visible = await self._visibility.visible(access.room, access.user_id, reachable)
            seen += [event for event in visible if _is_wanted(request, event.stored)]
            if len(seen) > limit:
                del seen[limit:]
                return _Walk(seen, _behind(seen[-1].stored, request.backwards), exhausted=False)
            if chunk:
                place = _behind(chunk[-1], request.backwards)
            if len(chunk) < size:
                return _Walk(seen, place, exhausted=True)
            if len(seen) == limit:
                break
        return _Walk(seen, place, exhausted=False)

    async def _next(
        self, room: Room, stretch: _Stretch, size: int, backwards: bool
    ) -> list[StoredEvent]:
        """The next events along a stretch, nearest first."""
        at_hand = _from_memory(room, stretch, size, backwards)
        if at_hand is not None:
            return at_hand
        rows = await self._rows(room, stretch, size, backwards)
        for _ in range(1 if backwards else MAX_FILLS):
            reached = _gaps_reached(room, stretch, rows, size, backwards)
            if reached is None or self.backfill is None:
                break
            if not await self.backfill.fill(room, reached, max(size, CHUNK if backwards else FILL)):
                break
            rows = await self._rows(room, stretch, size, backwards)
        numbers = [event for _, _, event in rows]
        return await self._rooms.stores.events.load_in_order(room.version, numbers)

    async def _rows(
        self, room: Room, stretch: _Stretch, size: int, backwards: bool
    ) -> list[tuple[int, int, int]]:
        return await self._db.run(
            event_pages.page,
            room.number,
            stretch.start,
            stretch.bound,
            size,
            backwards=backwards,
            above=stretch.above,
            upto=stretch.upto,
        )

    async def _stretch(self, access: Access, request: PageRequest) -> _Stretch:
        """What a request asks for, within what the user may reach."""
        room, backwards = access.room, request.backwards
        last = await self._last_place(access)
        start, bound = (last, START) if backwards else (START, last)
        above, upto = -FOREVER, access.until
        if request.since is not None:
            token = parse_history_token(request.since)
            since = token.place
            if token.upto is not None:
                upto = min(upto, token.upto)
            if not isinstance(since, int):
                start = min(since, last)
                if token.above is not None and not backwards:
                    above = token.above
            elif backwards:
                upto = min(upto, since)
                start = max(await self._end_of(room, upto), await self._above_gap(room, since))
                start = min(start, last)
            else:
                start, above = await self._beginning_after(room, since), since
        if request.to is not None:
            to = parse_history_token(request.to).place
            if not isinstance(to, int):
                bound = max(bound, to) if backwards else min(bound, to)
            elif backwards:
                above = to
            else:
                upto = min(upto, to)
        return _Stretch(start, bound, above, upto)

    async def _last_place(self, access: Access) -> Place:
        """Where the history ends for the user."""
        return await self._end_of(access.room, min(access.until, access.room.last_position))

    async def _end_of(self, room: Room, position: int) -> Place:
        """A place behind all events up to a position."""
        newest = _newest(room, position)
        if newest is not None and (newest.position or 0) > room.disordered_at:
            return _behind(newest, backwards=False)
        return await self._db.run(event_pages.greatest_depth, room.number, position), position

    async def _above_gap(self, room: Room, position: int) -> Place:
        """A place behind what is missing between a position and the first event after it."""
        if position >= room.last_position:
            return START
        if position >= room.timeline_from:
            later = (each for each in room.timeline if (each.position or 0) > position)
            depth = next((each.height for each in later), 0)
        else:
            depth = await self._db.run(event_pages.depth_after, room.number, position)
        return depth, -FOREVER

    async def _beginning_after(self, room: Room, position: int) -> Place:
        """A place before all events above a position."""
        if position >= max(room.timeline_from, room.disordered_at):
            for stored in room.timeline:
                if (stored.position or 0) > position:
                    return stored.height, -FOREVER
        least = await self._db.run(event_pages.least_depth, room.number, position)
        return START if least is None else (least, -FOREVER)

    async def _senders_state(
        self, room: Room, wanted: RoomEventFilter, seen: Sequence[Seen]
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
        event: Seen,
        before: Sequence[Seen],
        after: Sequence[Seen],
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


def _from_memory(
    room: Room, stretch: _Stretch, size: int, backwards: bool
) -> list[StoredEvent] | None:
    """The next events, if the room's timeline in memory has all of them in the order of history.

    It has where each event stands deeper in the graph than all that came before it.
    """
    start, bound = stretch.start, stretch.bound
    within = [
        stored
        for stored in room.timeline
        if (here := _place_of(stored)) is not None
        and stretch.above < here[1] <= stretch.upto
        and (bound < here <= start if backwards else start < here <= bound)
    ]
    found = within[::-1][:size] if backwards else within[:size]
    # A room that this server came into later has a past that no sync shows.
    is_whole = bool(room.timeline) and is_state(room.timeline[0].event, "m.room.create")
    if backwards:
        complete = len(found) == size or is_whole
    else:
        first = _place_of(room.timeline[0]) if room.timeline else None
        complete = is_whole or (first is not None and start >= _just_before(first))
    in_order = all((stored.position or 0) > room.disordered_at for stored in found)
    return found if complete and in_order else None


def _gaps_reached(
    room: Room, stretch: _Stretch, rows: Sequence[tuple[int, int, int]], size: int, backwards: bool
) -> Depths | None:
    """Between which depths gaps are in the way of these rows; `None` if there are none.

    Forwards only those count that have something known before them.
    """
    furthest = rows[-1][0] if len(rows) == size else stretch.bound[0]
    start = stretch.start[0]
    if not backwards and stretch.start == START:
        start = rows[0][0] if rows else FOREVER
    depths = (furthest, start) if backwards else (start + 1, furthest)
    is_reached = any(depths[0] <= depth <= depths[1] for depth in room.gaps.values())
    return depths if is_reached else None


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


def _place_of(stored: StoredEvent) -> Place | None:
    return None if stored.position is None else (stored.height, stored.position)


def _just_before(place: Place) -> Place:
    # No two events have the same position.
    return place[0], place[1] - 1


def _behind(stored: StoredEvent, backwards: bool) -> Place:
    """The place at which a walk goes on that has come past an event."""
    place = stored.height, stored.position or 0
    return _just_before(place) if backwards else place
