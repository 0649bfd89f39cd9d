"""The old event stream: waits for whatever happens, in one room or in all rooms of a user.

`/sync` has replaced it. What is left of its use is looking into a room without joining it, as long
as all the world may read the room, and clients and bots from the early days.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-previews
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.clock import Clock
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.protocol.errors import NotFound
from homeserver.rooms.history.room_reader import RoomReader
from homeserver.rooms.history.visibility import VisibleEvent
from homeserver.sync.engine import Sources, SyncEngine
from homeserver.sync.streamed_events import EventSlice, StreamedEvents

Wake = Callable[[], None]


class EventStream:
    """Answers the old event stream. `apply` is to be subscribed to the log, after the feeds."""

    def __init__(
        self,
        sources: Sources,
        engine: SyncEngine,
        reading: RoomReader,
        events: StreamedEvents,
        clock: Clock,
    ) -> None:
        self._sources = sources
        self._rooms = sources.rooms
        self._engine = engine
        self._reading = reading
        self._events = events
        self._clock = clock
        self._peeking: dict[int, set[Wake]] = {}  # by room: those who wait for its news
        self._waiting: set[Wake] = set()
        self._stopping = False

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log: wake those who look into a room."""
        if not self._peeking:
            return
        rooms: set[int] = set()
        for fact in facts:
            if isinstance(fact, PresenceChanged):
                rooms.update(fact.rooms)
            elif isinstance(number := getattr(fact, "room", None), int):
                rooms.add(number)
        for number in rooms.intersection(self._peeking):
            for wake in tuple(self._peeking[number]):
                self._clock.callLater(0, wake)

    def stop(self) -> None:
        """Answer all who wait, with what there is: the server is going down."""
        self._stopping = True
        for wake in tuple(self._waiting):
            wake()

    async def wait(
        self,
        caller: Requester,
        since: int | None,
        timeout: float,
        room_id: str | None = None,
        *,
        limit: int | None = None,
    ) -> EventSlice:
        """What is new in the user's rooms, or in one that they may read.

        Begins at `since`, or now; waits up to `timeout` seconds for something to happen. `limit`
        bounds the events of rooms. Raises `Forbidden` where the user may not read the room.
        """
        position = self._sources.log.position if since is None else since
        deadline = self._clock.seconds() + timeout
        bell = _Wakeup(self._clock)
        unfollow = await self._follow(caller, room_id, bell.fire)
        self._waiting.add(bell.fire)
        try:
            while True:
                bell.cancel()
                stretch = await self._look(caller, room_id, position, limit)
                left = deadline - self._clock.seconds()
                if stretch.chunk or left <= 0 or self._stopping:
                    return stretch
                position = stretch.end
                if position == self._sources.log.position:
                    await bell.wait(left)
        finally:
            self._waiting.discard(bell.fire)
            unfollow()

    async def event(self, caller: Requester, event_id: str) -> VisibleEvent:
        """One event of any room that the user may see. Raises `NotFound` for all others."""
        for number in await self._rooms.stores.events.rooms_with(event_id):
            room = await self._rooms.by_number(number)
            if room is not None:
                with suppress(NotFound):
                    return await self._reading.event(caller.user_id, room.room_id, event_id)
        raise NotFound("There is no such event, or you may not see it")

    async def _look(
        self, caller: Requester, room_id: str | None, since: int, limit: int | None
    ) -> EventSlice:
        if room_id is None:
            return await self._events.in_all_rooms(caller, since, limit)
        # Whether the room may be read can change while one waits.
        access = await self._reading.access(caller.user_id, room_id)
        return await self._events.in_room(caller, access, since, limit)

    async def _follow(self, caller: Requester, room_id: str | None, wake: Wake) -> Wake:
        """Have `wake` called for news; the result stops that."""
        if room_id is None:
            return await self._engine.follow(caller.user_id, wake)
        number = (await self._reading.access(caller.user_id, room_id)).room.room_nid
        self._peeking.setdefault(number, set()).add(wake)

        def unfollow() -> None:
            waiting = self._peeking[number]
            waiting.discard(wake)
            if not waiting:
                del self._peeking[number]

        return unfollow


class _Wakeup:
    """Ends a wait. What rings before the wait begins ends it too."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._news: Deferred[None] = Deferred()

    def fire(self) -> None:
        if not self._news.called:
            self._news.callback(None)

    def cancel(self) -> None:
        if self._news.called:
            self._news = Deferred()

    async def wait(self, seconds: float) -> None:
        alarm = self._clock.callLater(seconds, self.fire)
        try:
            await self._news
        finally:
            if alarm.active():
                alarm.cancel()
