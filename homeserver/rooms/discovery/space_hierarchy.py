"""The hierarchy of a space: its tree of rooms, page by page, as one user may see it.

The tree is walked depth first, in the order of the children; a room that was passed is passed over
where it comes again, which also breaks loops. Rooms that this server is not in are asked for
elsewhere. A walk goes on only as far as pages are asked for. What it found is remembered by its
token, so that a page can be asked for again; who may be told is judged anew each time.

Spec: https://spec.matrix.org/v1.19/client-server-api/#discovering-rooms-within-spaces
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredList, DeferredLock

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import Forbidden, InvalidParam
from homeserver.rooms.discovery.space_children import RoomDescription, SpaceChildRooms, SpaceRoom

DEFAULT_LIMIT = 50
MAX_LIMIT = 100  # rooms of an answer
MAX_DEPTH = 20
MAX_ROOMS = 2_000  # of one walk
MAX_WALKS = 300  # that are remembered
MAX_WALKS_OF_USER = 4
MAX_CONCURRENT_REQUESTS = 8  # rooms that are asked for elsewhere at the same time
PAGE_TIMEOUT_SECONDS = 15.0  # after which a page ends with what was found, to be gone on from

_TOKEN = re.compile(r"h([0-9a-f]{16})_(\d{1,6})")


class RemoteSpacesPort(Protocol):
    """Who asks other servers about rooms that this one is not in."""

    async def describe(self, room_id: str, via: Sequence[str]) -> RoomDescription | None:
        """What one of the servers says of a room, remembered for a while."""

    def child_of(self, parent: str, room_id: str) -> RoomDescription | None:
        """What was said of a room together with a space that it is in, if that is remembered."""

    def is_closed(self, parent: str, room_id: str) -> bool:
        """Whether that server said that nobody here can get into the room."""


@dataclass(frozen=True, slots=True)
class HierarchyRequest:
    """Which part of which tree is wanted; `since` is a token."""

    room_id: str
    suggested_only: bool = False
    max_depth: int | None = None
    limit: int | None = None
    since: str | None = None

    @property
    def depth(self) -> int:
        """How many steps down the walk goes."""
        return MAX_DEPTH if self.max_depth is None else min(self.max_depth, MAX_DEPTH)

    @property
    def size(self) -> int:
        """Most rooms of the page."""
        return DEFAULT_LIMIT if self.limit is None else min(self.limit, MAX_LIMIT)


@dataclass(frozen=True, slots=True)
class HierarchyPage:
    """Rooms of a tree, and the token to go on from."""

    rooms: Sequence[SpaceRoom]
    next_batch: str | None


@dataclass(frozen=True, slots=True)
class _Step:
    """A room of the tree, how it is reached, and the space that it was found in."""

    room_id: str
    depth: int
    via: tuple[str, ...] = ()
    parent: str | None = None


@dataclass(slots=True)
class _Walk:
    """A walk of one user: what was found, what lies ahead (the next one last), what was passed."""

    user_id: str
    request: HierarchyRequest
    found: list[_Step] = field(default_factory=list)
    ahead: list[_Step] = field(default_factory=list)
    passed: set[str] = field(default_factory=set)
    lock: DeferredLock = field(default_factory=DeferredLock)

    def is_for(self, user_id: str, request: HierarchyRequest) -> bool:
        own = self.request
        return (self.user_id, own.room_id, own.suggested_only, own.depth) == (
            user_id,
            request.room_id,
            request.suggested_only,
            request.depth,
        )

    def next(self) -> _Step | None:
        """Take the next step that leads to a room where the walk has not been."""
        while self.ahead and len(self.found) < MAX_ROOMS:
            step = self.ahead.pop()
            if step.room_id not in self.passed:
                self.passed.add(step.room_id)
                return step
        return None

    def enter(self, step: _Step, description: RoomDescription) -> None:
        """Note a room that was found, and that its children come next."""
        self.found.append(step)
        if step.depth >= self.request.depth:
            return
        room = max(0, MAX_ROOMS - len(self.ahead))
        self.ahead += [
            _Step(each.child.room_id, step.depth + 1, each.child.via, step.room_id)
            for each in reversed(description.children[:room])
        ]


class SpaceHierarchy:
    """Walks the trees of spaces on behalf of users."""

    def __init__(
        self, clock: Clock, space_rooms: SpaceChildRooms, remote: RemoteSpacesPort
    ) -> None:
        self._clock = clock
        self._space_rooms = space_rooms
        self._walks: LruCache[str, _Walk] = LruCache("space_hierarchy_walks", MAX_WALKS)
        self._remote = remote

    async def page(self, user_id: str, request: HierarchyRequest) -> HierarchyPage:
        """A page of the tree of a space.

        Raises `Forbidden` where the user may not be told of the room at its top, and `InvalidParam`
        for a token that is not known (any more), or is of a walk with other parameters.
        """
        name, offset, walk = await self._walk_of(user_id, request)
        await walk.lock.acquire()
        try:
            rooms, offset, is_over = await self._collect(walk, offset, request.size)
        finally:
            walk.lock.release()
        return HierarchyPage(rooms, None if is_over else f"h{name}_{offset}")

    async def _walk_of(self, user_id: str, request: HierarchyRequest) -> tuple[str, int, _Walk]:
        if request.since is not None:
            match = _TOKEN.fullmatch(request.since)
            walk = None if match is None else self._walks.get(match[1])
            if match is None or walk is None or int(match[2]) > len(walk.found):
                raise InvalidParam("The token `from` is not known; begin anew without it")
            if not walk.is_for(user_id, request):
                raise InvalidParam("suggested_only and max_depth cannot change between pages")
            return match[1], int(match[2]), walk
        walk = _Walk(user_id, request)
        via = await self._space_rooms.likely_servers(user_id, request.room_id)
        walk.ahead.append(_Step(request.room_id, 0, via))
        if await self._described(walk, walk.ahead[0]) is None:
            raise Forbidden("There is no such room, or you may not know of it")
        name = token_hex(8)
        self._remember(name, walk)
        return name, 0, walk

    def _remember(self, name: str, walk: _Walk) -> None:
        own = [key for key, each in self._walks.items() if each.user_id == walk.user_id]
        for key in own[: len(own) + 1 - MAX_WALKS_OF_USER]:
            self._walks.pop(key)
        self._walks.put(name, walk)

    async def _collect(
        self, walk: _Walk, offset: int, size: int
    ) -> tuple[list[SpaceRoom], int, bool]:
        """Rooms from a place of a walk, the place to go on from, and whether nothing is left."""
        rooms: list[SpaceRoom] = []
        until = self._clock.seconds() + PAGE_TIMEOUT_SECONDS
        while len(rooms) < size and self._clock.seconds() < until:
            if offset < len(walk.found):
                description = await self._described(walk, walk.found[offset])
                offset += 1
            else:
                await self._look_ahead(walk)
                step = walk.next()
                if step is None:
                    return rooms, offset, True
                description = await self._described(walk, step)
                if description is not None:
                    walk.enter(step, description)
                    offset += 1
            if description is not None:
                rooms.append(description.shown())
        return rooms, offset, offset == len(walk.found) and not walk.ahead

    async def _described(self, walk: _Walk, step: _Step) -> RoomDescription | None:
        """What the user may know of a room on the way."""
        description = await self._find(step, is_last=step.depth >= walk.request.depth)
        if description is None or not await self._space_rooms.may_user_know(
            walk.user_id, description.summary
        ):
            return None
        return description.suggested() if walk.request.suggested_only else description

    async def _find(self, step: _Step, *, is_last: bool) -> RoomDescription | None:
        room = await self._space_rooms.find(step.room_id)
        if room is not None:
            return await self._space_rooms.describe(room)
        told = None
        if step.parent is not None:
            if self._remote.is_closed(step.parent, step.room_id):
                return None
            told = self._remote.child_of(step.parent, step.room_id)
        if told is not None and (is_last or not told.is_space):
            return told
        # Only the space itself comes with what is in it.
        return await self._remote.describe(step.room_id, step.via) or told

    async def _look_ahead(self, walk: _Walk) -> None:
        """Ask for the next rooms side by side; one after the other they would take too long."""
        if not walk.ahead or await self._space_rooms.find(walk.ahead[-1].room_id) is not None:
            return
        depth = walk.request.depth
        steps = [
            step
            for step in walk.ahead[-MAX_CONCURRENT_REQUESTS:]
            if step.room_id not in walk.passed
        ]
        asking = [
            Deferred.fromCoroutine(self._find(step, is_last=step.depth >= depth))
            for step in steps
            if step.via
        ]
        await DeferredList(asking, consumeErrors=True)
