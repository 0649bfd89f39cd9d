"""The old event stream: a long poll for events of one room, or of all rooms of a user.

`/sync` has replaced it. It is still used to peek into a world-readable room without joining it, and
by old clients and bots.

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
from homeserver.rooms.room.changes import StateChanged
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.engine import SyncEngine
from homeserver.sync.sources import Sources
from homeserver.sync.streamed_events import EventSlice, StreamedEvents
from homeserver.sync.sync_span import SyncSpan

Wake = Callable[[], None]


class EventStream:
    """Serves the old event stream. Subscribe `apply` to the log, after the change queues."""

    def __init__(
        self,
        sources: Sources,
        engine: SyncEngine,
        reader: RoomReader,
        events: StreamedEvents,
        clock: Clock,
    ) -> None:
        self._sources = sources
        self._rooms = sources.rooms
        self._engine = engine
        self._reader = reader
        self._events = events
        self._clock = clock
        self._peeking: dict[int, set[Wake]] = {}  # by room: the requests that wait for its changes
        self._waiting: set[Wake] = set()
        self._stopping = False

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: wake the requests that peek into a room."""
        if not self._peeking:
            return
        rooms: set[int] = set()
        for entry in entries:
            if isinstance(entry, StateChanged):
                rooms.add(entry.room_nid)
            elif isinstance(entry, PresenceChanged):
                rooms.update(entry.rooms)
            elif isinstance(room_nid := getattr(entry, "room", None), int):
                rooms.add(room_nid)
        for room_nid in rooms.intersection(self._peeking):
            for wake in tuple(self._peeking[room_nid]):
                self._clock.callLater(0, wake)

    def stop(self) -> None:
        """Answer all waiting requests with what there is: the server is shutting down."""
        self._stopping = True
        for wake in tuple(self._waiting):
            wake()

    async def wait(
        self,
        caller: Requester,
        since: SyncToken | None,
        timeout: float,
        room_id: str | None = None,
        *,
        limit: int | None = None,
    ) -> EventSlice:
        """Return what is new in the user's rooms, or in one that they may read.

        Begins at `since`, or now; waits up to `timeout` seconds for a change. `limit`
        bounds the events of rooms. Raises `Forbidden` where the user may not read the room.
        """
        token = SyncToken(self._sources.log.seen.snapshot().base) if since is None else since
        deadline = self._clock.seconds() + timeout
        wakeup = _Wakeup(self._clock)
        unfollow = await self._follow(caller, room_id, wakeup.fire)
        self._waiting.add(wakeup.fire)
        try:
            while True:
                wakeup.cancel()
                found = await self._look(caller, room_id, token, limit)
                left = deadline - self._clock.seconds()
                if found.chunk or left <= 0 or self._stopping:
                    return found
                token = found.end
                if SyncSpan(token, self._sources.log.seen.snapshot()).token.is_within(token):
                    await wakeup.wait(left)
        finally:
            self._waiting.discard(wakeup.fire)
            unfollow()

    async def event(self, caller: Requester, event_id: str) -> VisibleEvent:
        """One event of any room that the user may see. Raises `NotFound` for all others."""
        for room_nid in await self._rooms.rooms_with_event(event_id):
            room = await self._rooms.by_number(room_nid)
            if room is not None:
                with suppress(NotFound):
                    return await self._reader.event(caller.user_id, room.room_id, event_id)
        raise NotFound("There is no such event, or you may not see it")

    async def _look(
        self, caller: Requester, room_id: str | None, since: SyncToken, limit: int | None
    ) -> EventSlice:
        if room_id is None:
            return await self._events.in_all_rooms(caller, since, limit)
        # The user may gain or lose access during the wait.
        access = await self._reader.access(caller.user_id, room_id)
        return await self._events.in_room(caller, access, since, limit)

    async def _follow(self, caller: Requester, room_id: str | None, wake: Wake) -> Wake:
        """Have `wake` called for each change; the result stops that."""
        if room_id is None:
            return await self._engine.follow(caller.user_id, wake)
        room_nid = (await self._reader.access(caller.user_id, room_id)).room.room_nid
        self._peeking.setdefault(room_nid, set()).add(wake)

        def unfollow() -> None:
            waiting = self._peeking[room_nid]
            waiting.discard(wake)
            if not waiting:
                del self._peeking[room_nid]

        return unfollow


class _Wakeup:
    """Ends a wait. Fired before the wait begins, it ends it too."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._fired: Deferred[None] = Deferred()

    def fire(self) -> None:
        if not self._fired.called:
            self._fired.callback(None)

    def cancel(self) -> None:
        if self._fired.called:
            self._fired = Deferred()

    async def wait(self, seconds: float) -> None:
        alarm = self._clock.callLater(seconds, self.fire)
        try:
            await self._fired
        finally:
            if alarm.active():
                alarm.cancel()
