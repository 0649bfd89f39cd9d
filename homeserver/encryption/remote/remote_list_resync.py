"""Fetches device lists in the background: those of which an update was missed.

Each server has a queue, which is worked through one user at a time; a few servers are served at the
same time. After a failure a server's queue pauses, longer each time, until the server is reachable
again. What is left undone, because too many wait or the process ends, is fetched after the next
start, and at the latest when somebody asks for the keys.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock
from homeserver.encryption.remote.remote_keys_port import KeysUnavailable
from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.database import Database, DatabaseUnavailable
from homeserver.storage.encryption.remote_devices import stale_lists

MAX_SERVERS_AT_ONCE = 10
MAX_USERS = 20_000  # that wait
MAX_FAILURES = 20  # of one server in a row, after which its users wait no longer
RETRIES = RetrySchedule.doubling(2.0, 3_600.0)
log = Logger()

Refresh = Callable[[str], Coroutine[Any, Any, bool]]
"""Makes the list of a user current, and says whether it is. Raises `KeysUnavailable`."""


class _Queue:
    """The users of one server whose lists are to be fetched, and the present pause."""

    __slots__ = ("failures", "pause", "running", "users")

    def __init__(self) -> None:
        self.users: dict[str, None] = {}
        self.failures = 0
        self.pause: Deferred[None] | None = None
        self.running: Deferred[None] | None = None


class RemoteListResync:
    """The background work: `start` it after the federation, and `stop` it before."""

    def __init__(self, db: Database, refresh: Refresh, clock: Clock) -> None:
        self._db = db
        self._refresh = refresh
        self._clock = clock
        self._queues: dict[str, _Queue] = {}
        self._slots = DeferredSemaphore(MAX_SERVERS_AT_ONCE)
        self._is_stopped = False
        self._waiting_users = 0

    async def start(self) -> None:
        """Continue with the lists that are stale since the last process."""
        for user_id in await self._db.run(stale_lists, MAX_USERS):
            self.begin(user_id)

    def begin(self, user_id: str) -> None:
        """Fetch the list of a user soon, once however often this is called until then."""
        server = user_id.partition(":")[2]
        queue = self._queues.get(server)
        if self._is_stopped or (queue is not None and user_id in queue.users):
            return
        if self._waiting_users >= MAX_USERS:
            return
        self._waiting_users += 1
        if queue is not None:
            queue.users[user_id] = None
            return
        queue = self._queues[server] = _Queue()
        queue.users[user_id] = None
        queue.running = Deferred.fromCoroutine(self._work(server, queue))
        queue.running.addBoth(_ended)

    def server_reachable(self, server: str) -> None:
        """A server that had failed can be reached again: do not wait any longer."""
        queue = self._queues.get(server)
        if queue is not None and queue.pause is not None:
            _fire(queue.pause)

    def stop(self) -> None:
        """Cancel all work in progress."""
        self._is_stopped = True
        for queue in [*self._queues.values()]:
            if queue.running is not None:
                queue.running.cancel()

    async def _work(self, server: str, queue: _Queue) -> None:
        try:
            while queue.users and queue.failures < MAX_FAILURES:
                user_id = next(iter(queue.users))
                if await self._slots.run(self._start_try, user_id):
                    queue.failures = 0
                    del queue.users[user_id]
                    self._waiting_users -= 1
                    continue
                # The next attempt is for another user: this one may be the cause.
                queue.users[user_id] = queue.users.pop(user_id)
                queue.failures += 1
                await self._pause(queue)
        finally:
            self._waiting_users -= len(queue.users)
            del self._queues[server]

    def _start_try(self, user_id: str) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._try(user_id))

    async def _try(self, user_id: str) -> bool:
        try:
            return await self._refresh(user_id)
        except (KeysUnavailable, Unavailable, DatabaseUnavailable) as error:
            log.info("could not fetch the devices of {user}: {error}", user=user_id, error=error)
        except CancelledError:
            raise
        except Exception:
            log.failure("could not fetch the devices of {user}", user=user_id)
        return False

    async def _pause(self, queue: _Queue) -> None:
        queue.pause = Deferred()
        alarm = self._clock.callLater(RETRIES.pause(queue.failures), _fire, queue.pause)
        try:
            await queue.pause
        finally:
            queue.pause = None
            if alarm.active():
                alarm.cancel()


def _fire(pause: Deferred[None]) -> None:
    if not pause.called:
        pause.callback(None)


def _ended(outcome: object) -> None:
    if isinstance(outcome, Failure) and not outcome.check(CancelledError):
        log.failure("fetching device lists failed", outcome)
