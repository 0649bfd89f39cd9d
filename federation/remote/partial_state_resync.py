"""Fetches the full state of rooms that were joined with partial state.

One task for each room asks its servers in turn, beginning with the one that accepted our join,
until one returns the state before the join; each round of failures is followed by a longer pause.
The task continues after a restart, and ends when no local user is in the room any more.

Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
"""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.logger import Logger

from federation.receiving.event_fetcher import EventFetcher
from federation.transport.errors import FederationError
from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock
from homeserver.protocol.errors import Unavailable
from homeserver.rooms.inbound.event_checks import EventsMissing
from homeserver.rooms.inbound.partial_state_completion import JoinRefused, PartialStateCompletion
from homeserver.rooms.room.changes import PartialRoomLeft, StateChanged
from homeserver.rooms.room.partial_state import PartialState
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.partial_rooms import LEAVE_PARTIAL_ROOM, unfinished_rooms
from homeserver.streams.log import Log

MAX_CONCURRENT_ROOMS = 3  # rooms: each may take as much memory as its members do
MAX_SERVERS_PER_ROUND = 20  # servers
RETRIES = RetrySchedule.doubling(2.0, 3_600.0)

log = Logger()


class PartialStateResync:
    """Fetches the full state of rooms in the background."""

    def __init__(
        self,
        rooms: RoomRegistry,
        fetcher: EventFetcher,
        completion: PartialStateCompletion,
        log: Log,
        db: Database,
        clock: Clock,
    ) -> None:
        self._rooms = rooms
        self._log = log
        self._fetcher = fetcher
        self._completion = completion
        self._db = db
        self._clock = clock
        self._slots = DeferredSemaphore(MAX_CONCURRENT_ROOMS)
        self._tasks: dict[int, Deferred[None]] = {}
        self._pauses: dict[int, Deferred[None]] = {}
        self._stopped = False

    async def start(self) -> None:
        """Continue with the rooms that the last process did not finish."""
        for room_nid in await self._db.run(unfinished_rooms):
            self.begin(room_nid)

    async def stop(self) -> None:
        """Cancel all tasks; they continue after the next start."""
        self._stopped = True
        for task in [*self._tasks.values()]:
            task.cancel()

    def begin(self, room_nid: int) -> None:
        """Start the task of a room, unless it is running."""
        if room_nid in self._tasks or self._stopped:
            return
        # The task may end at once, if the room has full state already.
        self._tasks[room_nid] = Deferred()
        task = Deferred.fromCoroutine(self._work(room_nid))
        if room_nid in self._tasks:
            self._tasks[room_nid] = task

    def apply(self, entries: Sequence[Any]) -> None:
        """End the tasks of rooms without local users (called by the log)."""
        for entry in entries:
            if isinstance(entry, StateChanged) and entry.room_nid in self._pauses:
                room = self._rooms.loaded(entry.room_nid)
                if room is not None and not self._is_here(room):
                    _fire(self._pauses[entry.room_nid])

    async def _work(self, room_nid: int) -> None:
        attempt = 0
        try:
            while not await self._attempt(room_nid, attempt):
                attempt += 1
                await self._pause(room_nid, RETRIES.pause(attempt))
        except CancelledError:
            pass
        finally:
            self._tasks.pop(room_nid, None)

    async def _attempt(self, room_nid: int, attempt: int) -> bool:
        """Try a round of servers; returns whether nothing is left to do."""
        try:
            return await self._slots.run(
                lambda: Deferred.fromCoroutine(self._complete(room_nid, attempt))
            )
        except Unavailable:
            return False
        except CancelledError:
            raise
        except Exception:
            # The room is usable with partial state, and the next attempt may succeed.
            log.failure("could not complete the state of the room with nid {room}", room=room_nid)
            return False

    async def _complete(self, room_nid: int, attempt: int) -> bool:
        room = await self._rooms.by_number(room_nid)
        if room is None or room.partial is None:
            return True
        partial = room.partial
        for server in _servers_of_round(partial.servers, attempt):
            if not self._is_here(room):
                await self._give_up(room, partial)
                return True
            if server != self._rooms.local_server.server_name and await self._ask(
                server, room, partial
            ):
                return True
        log.warn(
            "could not fetch full state of {room} from any server; retrying in {seconds}s",
            room=room.room_id,
            seconds=RETRIES.pause(attempt + 1),
        )
        return False

    async def _ask(self, server: str, room: Room, partial: PartialState) -> bool:
        """Complete the state with that of a server; returns whether this succeeded."""
        async with self._rooms.writing(room.room_id) as writer:
            try:
                state = await self._fetcher.fetch_state(server, writer, partial.join_id)
                if room.partial is partial:
                    await self._completion.complete(writer, state)
            except (FederationError, EventsMissing, JoinRefused) as error:
                log.info(
                    "could not fetch full state of {room} from {server}: {error}",
                    server=server,
                    room=room.room_id,
                    error=error,
                )
                return False
        log.info("full state of {room} received", room=room.room_id)
        return True

    async def _give_up(self, room: Room, partial: PartialState) -> None:
        """No local user is in the room: its partial state stays as it is."""
        # The servers in the room are needed until the sender has queued the event by which we left.
        await self._log.flush()
        entry = PartialRoomLeft(self._log.next_position(), room.room_nid, partial.join_id)
        row = LEAVE_PARTIAL_ROOM.row(room.room_nid, partial.join_id)
        await self._log.append(entry, [row])
        log.info("left {room} before its full state was received", room=room.room_id)

    def _is_here(self, room: Room) -> bool:
        return self._rooms.local_server.server_name in room.joined_servers

    async def _pause(self, room_nid: int, seconds: float) -> None:
        done: Deferred[None] = Deferred()
        self._pauses[room_nid] = done
        alarm = self._clock.callLater(seconds, _fire, done)
        try:
            await done
        finally:
            del self._pauses[room_nid]
            if alarm.active():
                alarm.cancel()


def _servers_of_round(servers: Sequence[str], attempt: int) -> Sequence[str]:
    """The servers of a round: always the first, and others than in the round before."""
    others = servers[1:]
    if len(others) < MAX_SERVERS_PER_ROUND:
        return servers
    start = attempt * (MAX_SERVERS_PER_ROUND - 1) % len(others)
    return [servers[0], *[*others[start:], *others[:start]][: MAX_SERVERS_PER_ROUND - 1]]


def _fire(done: Deferred[None]) -> None:
    if not done.called:
        done.callback(None)
