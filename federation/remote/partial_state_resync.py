"""Fetching the members of rooms that were entered without them.

One task a room asks the servers in it in turn, the one that let us in first, until one gives the
state before our join; each round of failures is followed by a longer pause. It goes on after a
restart, and ends where none of our users is in the room any more.

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
MAX_ASKED = 20  # servers in one round
RETRIES = RetrySchedule.doubling(2.0, 3_600.0)

log = Logger()


class PartialStateResync:
    """Completes rooms in the background."""

    def __init__(
        self,
        rooms: RoomRegistry,
        missing: EventFetcher,
        completion: PartialStateCompletion,
        log: Log,
        db: Database,
        clock: Clock,
    ) -> None:
        self._rooms = rooms
        self._log = log
        self._missing = missing
        self._completion = completion
        self._db = db
        self._clock = clock
        self._slots = DeferredSemaphore(MAX_CONCURRENT_ROOMS)
        self._tasks: dict[int, Deferred[None]] = {}
        self._pauses: dict[int, Deferred[None]] = {}
        self._stopped = False

    async def start(self) -> None:
        """Go on with the rooms that the last process did not complete."""
        for number in await self._db.run(unfinished_rooms):
            self.begin(number)

    async def stop(self) -> None:
        """End all tasks; they go on after the next start."""
        self._stopped = True
        for task in [*self._tasks.values()]:
            task.cancel()

    def begin(self, number: int) -> None:
        """Complete the room with this number, unless that is under way."""
        if number in self._tasks or self._stopped:
            return
        # It may end at once, where the room is not partial after all.
        self._tasks[number] = Deferred()
        task = Deferred.fromCoroutine(self._work(number))
        if number in self._tasks:
            self._tasks[number] = task

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log: what nobody of ours is in any more need not be completed."""
        for fact in facts:
            if isinstance(fact, StateChanged) and fact.room_nid in self._pauses:
                room = self._rooms.loaded(fact.room_nid)
                if room is not None and not self._is_here(room):
                    _fire(self._pauses[fact.room_nid])

    async def _work(self, number: int) -> None:
        attempt = 0
        try:
            while not await self._attempt(number, attempt):
                attempt += 1
                await self._pause(number, RETRIES.pause(attempt))
        except CancelledError:
            pass
        finally:
            self._tasks.pop(number, None)

    async def _attempt(self, number: int, attempt: int) -> bool:
        """Whether there is nothing left to do."""
        try:
            return await self._slots.run(
                lambda: Deferred.fromCoroutine(self._complete(number, attempt))
            )
        except Unavailable:
            return False
        except CancelledError:
            raise
        except Exception:
            # The room is of use as it is, and the next attempt may go better.
            log.failure("completing the state of room number {room} failed", room=number)
            return False

    async def _complete(self, number: int, attempt: int) -> bool:
        room = await self._rooms.by_number(number)
        if room is None or room.partial is None:
            return True
        partial = room.partial
        for server in _asked(partial.servers, attempt):
            if not self._is_here(room):
                await self._give_up(room, partial)
                return True
            if server != self._rooms.local_server.server_name and await self._ask(
                server, room, partial
            ):
                return True
        log.warn("no server gives the members of {room}; trying again", room=room.room_id)
        return False

    async def _ask(self, server: str, room: Room, partial: PartialState) -> bool:
        """Complete the room by the word of a server; whether that was possible."""
        async with self._rooms.writing(room.room_id) as writer:
            try:
                state = await self._missing.fetch_state(server, writer, partial.join_id)
                if room.partial is partial:
                    await self._completion.complete(writer, state)
            except (FederationError, EventsMissing, JoinRefused) as error:
                log.info(
                    "{server} does not give the members of {room}: {error}",
                    server=server,
                    room=room.room_id,
                    error=error,
                )
                return False
        log.info("the state of {room} is whole", room=room.room_id)
        return True

    async def _give_up(self, room: Room, partial: PartialState) -> None:
        """Nobody of ours is in the room: what is known of it stays as it is."""
        # The servers in the room are remembered until the outboxes have the event by which we left.
        await self._log.flush()
        fact = PartialRoomLeft(self._log.next_position(), room.room_nid, partial.join_id)
        row = LEAVE_PARTIAL_ROOM.row(room.room_nid, partial.join_id)
        await self._log.append(fact, [row])
        log.info("{room} was left before its state was whole", room=room.room_id)

    def _is_here(self, room: Room) -> bool:
        return self._rooms.local_server.server_name in room.joined_servers

    async def _pause(self, number: int, seconds: float) -> None:
        done: Deferred[None] = Deferred()
        self._pauses[number] = done
        alarm = self._clock.callLater(seconds, _fire, done)
        try:
            await done
        finally:
            del self._pauses[number]
            if alarm.active():
                alarm.cancel()


def _asked(servers: Sequence[str], attempt: int) -> Sequence[str]:
    """Who is asked in a round: the first server, and others than in the round before."""
    others = servers[1:]
    if len(others) < MAX_ASKED:
        return servers
    start = attempt * (MAX_ASKED - 1) % len(others)
    return [servers[0], *[*others[start:], *others[:start]][: MAX_ASKED - 1]]


def _fire(done: Deferred[None]) -> None:
    if not done.called:
        done.callback(None)
