"""The hierarchy of a space: its tree of rooms, page by page, as one user may see it.

The tree is walked depth first, in the order of the children; a room that occurs again is skipped,
which also breaks loops. Other servers are asked for rooms that this server is not in. A walk
continues only as far as pages are requested. Its result is cached by its token, so that a page can
be requested again; whether the user may see a room is checked again each time.

Spec: https://spec.matrix.org/v1.19/client-server-api/#discovering-rooms-within-spaces
"""

import re
from collections.abc import Sequence
from secrets import token_hex
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred, DeferredList, DeferredLock

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import Forbidden, InvalidParam
from homeserver.rooms.discovery.space_children import RoomDescription, SpaceChildRooms, SpaceRoom

DEFAULT_LIMIT = 50
MAX_LIMIT = 100  # rooms of a response
MAX_DEPTH = 20
MAX_ROOMS = 2_000  # of one walk
MAX_WALKS = 300  # in the cache
MAX_WALKS_OF_USER = 4
MAX_CONCURRENT_REQUESTS = 8  # rooms that are fetched from other servers at the same time
PAGE_TIMEOUT_SECONDS = 15.0  # after which a page ends with the rooms found so far

_TOKEN = re.compile(r"h([0-9a-f]{16})_(\d{1,6})")


class RemoteSpacesPort(Protocol):
    """Fetches descriptions of rooms that this server is not in from other servers."""

    async def describe(self, room_id: str, via: Sequence[str]) -> RoomDescription | None:
        """A room as the first responding server describes it, cached for a while."""

    def child_of(self, parent: str, room_id: str) -> RoomDescription | None:
        """A room as described in the cached response of a space that it is in."""

    def is_inaccessible(self, parent: str, room_id: str) -> bool:
        """Whether the cached response of a space says that a room cannot be entered from here."""


class HierarchyRequest(msgspec.Struct, frozen=True):
    """A requested part of a tree; `since` is a token."""

    room_id: str
    suggested_only: bool = False
    max_depth: int | None = None
    limit: int | None = None
    since: str | None = None

    @property
    def depth(self) -> int:
        """The maximum depth of the walk."""
        return MAX_DEPTH if self.max_depth is None else min(self.max_depth, MAX_DEPTH)

    @property
    def size(self) -> int:
        """The maximum number of rooms of the page."""
        return DEFAULT_LIMIT if self.limit is None else min(self.limit, MAX_LIMIT)


class HierarchyPage(msgspec.Struct, frozen=True):
    """Rooms of a tree, and the token to continue from."""

    rooms: Sequence[SpaceRoom]
    next_batch: str | None


class _Step(msgspec.Struct, frozen=True):
    """A room of the tree, the servers to ask for it, and the space that it was found in."""

    room_id: str
    depth: int
    via: tuple[str, ...] = ()
    parent: str | None = None


class _Walk(msgspec.Struct):
    """A walk of one user: rooms found, steps ahead (the next one last), rooms visited."""

    user_id: str
    request: HierarchyRequest
    found: list[_Step] = msgspec.field(default_factory=list)
    ahead: list[_Step] = msgspec.field(default_factory=list)
    passed: set[str] = msgspec.field(default_factory=set)
    lock: DeferredLock = msgspec.field(default_factory=DeferredLock)

    def is_for(self, user_id: str, request: HierarchyRequest) -> bool:
        own = self.request
        return (self.user_id, own.room_id, own.suggested_only, own.depth) == (
            user_id,
            request.room_id,
            request.suggested_only,
            request.depth,
        )

    def next(self) -> _Step | None:
        """Remove and return the next step that leads to a room not visited yet."""
        while self.ahead and len(self.found) < MAX_ROOMS:
            step = self.ahead.pop()
            if step.room_id not in self.passed:
                self.passed.add(step.room_id)
                return step
        return None

    def enter(self, step: _Step, description: RoomDescription) -> None:
        """Record a room that was found, with its children as the next steps."""
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

        Raises `Forbidden` if the user may not see the room at its top, and `InvalidParam` for a
        token that is unknown or expired, or of a walk with other parameters.
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
                raise InvalidParam("The token `from` is unknown; begin again without it")
            if not walk.is_for(user_id, request):
                raise InvalidParam("suggested_only and max_depth cannot change between pages")
            return match[1], int(match[2]), walk
        walk = _Walk(user_id, request)
        via = await self._space_rooms.likely_servers(user_id, request.room_id)
        walk.ahead.append(_Step(request.room_id, 0, via))
        if await self._described(walk, walk.ahead[0]) is None:
            raise Forbidden("The room does not exist, or you may not see it")
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
        """Rooms from a place of a walk, the place to continue from, and whether nothing is left."""
        rooms: list[SpaceRoom] = []
        until = self._clock.seconds() + PAGE_TIMEOUT_SECONDS
        while len(rooms) < size and self._clock.seconds() < until:
            if offset < len(walk.found):
                description = await self._described(walk, walk.found[offset])
                offset += 1
            else:
                await self._prefetch(walk)
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
        """The room of a step, as far as the user may see it."""
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
        cached = None
        if step.parent is not None:
            if self._remote.is_inaccessible(step.parent, step.room_id):
                return None
            cached = self._remote.child_of(step.parent, step.room_id)
        if cached is not None and (is_last or not cached.is_space):
            return cached
        # Only the response for the space itself has its children.
        return await self._remote.describe(step.room_id, step.via) or cached

    async def _prefetch(self, walk: _Walk) -> None:
        """Fetch the next rooms concurrently; one after the other they would take too long."""
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
