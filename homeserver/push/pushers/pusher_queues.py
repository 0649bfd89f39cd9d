"""The queues of all pushers that have something to send, and their progress in the database."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.accounts.sessions.devices import DevicesRemoved
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.lru_cache import LruCache
from homeserver.outbound.json_posts import JsonPosts
from homeserver.protocol.errors import Unavailable
from homeserver.push.pushers.active_pushers import ActivePushers
from homeserver.push.pushers.badges import Badges
from homeserver.push.pushers.directory import PusherDirectory
from homeserver.push.pushers.gateways import Gateways
from homeserver.push.pushers.pusher import Pusher, PushersChanged, PushProgressStored
from homeserver.push.pushers.pusher_queue import (
    MissedPushes,
    NotificationSource,
    PushContext,
    PusherQueue,
)
from homeserver.push.pushers.pushers import Pushers
from homeserver.push.pushers.queued_push import QueuedPush
from homeserver.push.pushers.shared_requests import SharedRequests
from homeserver.streams.log import Log

MAX_GATEWAYS = 10_000  # that could not be reached, and are remembered
STORE_AGAIN_SECONDS = 1.0
START_SECONDS = 30.0  # over which what a former process has left is begun
log = Logger()


class PusherQueues:
    """Sends pushes. `apply` is to be subscribed to the log, after the directory."""

    def __init__(
        self,
        posts: JsonPosts,
        directory: PusherDirectory,
        pushers: Pushers,
        notifications: NotificationSource,
        missed: MissedPushes,
        badges: Badges,
        stream_log: Log,
        clock: Clock,
        chance: Callable[[], float],
        gateways_of_several: Collection[str],
    ) -> None:
        self._directory = directory
        self._badges = badges
        self._log = stream_log
        self._clock = clock
        self._chance = chance
        self._queues = ActivePushers(lambda pusher: PusherQueue(pusher, self._context))
        # The numbers of pushers by the gateway that they could not reach.
        self._unreachable: LruCache[str, set[int]] = LruCache("unreachable_gateways", MAX_GATEWAYS)
        self._sent: dict[int, Pusher] = {}  # whose progress is to be stored
        self._is_storing = False
        self._is_stopped = False
        self._starting: Deferred[None] | None = None
        self.gateways = Gateways(posts, self._reached)
        self._context = PushContext(
            self.gateways,
            SharedRequests(self.gateways, gateways_of_several, clock),
            notifications,
            missed,
            clock,
            chance,
            directory.current,
            self._record,
            pushers.rejected,
            self._note_unreachable,
            self._queues.drop,
        )

    def __len__(self) -> int:
        return len(self._queues)

    @property
    def behind(self) -> int:
        """The number of pushers that lack events, since their gateways do not accept them."""
        return sum(queue.pusher.progress.behind_since is not None for queue in self._queues)

    def start(self) -> None:
        """Continue with the pushers that were behind when the last process ended."""
        self._starting = Deferred.fromCoroutine(self._continue())
        self._starting.addErrback(self._not_continued)

    async def _continue(self) -> None:
        async for pusher in self._directory.behind():
            if pusher.is_pushing:
                queue = self._queues.of(pusher)
                if not queue.is_active:
                    queue.pause(self._chance() * START_SECONDS)

    def _not_continued(self, failure: Failure) -> None:
        if not self._is_stopped:
            log.failure("pushers that are behind wait for their next event", failure)

    def stop(self) -> None:
        """Send nothing more; what was not sent is sent after the next start."""
        self._is_stopped = True
        if self._starting is not None:
            self._starting.cancel()
        for queue in self._queues:
            queue.stop()
        self._store()

    def put(self, pusher: Pusher, push: QueuedPush) -> None:
        """Have a pusher send a push."""
        self._badges.mark(pusher.row.user_id, push.room_nid)
        if not self._is_stopped and push.position > pusher.progress.sent_upto:
            self._queues.of(pusher).put(push)

    def put_counts(self, pusher: Pusher) -> None:
        """Have a pusher send the counts of unread messages, if they have changed."""
        if not self._is_stopped:
            self._queues.of(pusher).put_counts()

    def first_unsent(self) -> int | None:
        """The position of the oldest push that is in memory only."""
        positions = [queue.first_position for queue in self._queues]
        return min((each for each in positions if each is not None), default=None)

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: pushers that were changed are read again (called by the log)."""
        for entry in entries:
            if isinstance(entry, PushersChanged):
                for user_id in entry.user_ids:
                    self._refresh(user_id)
            elif isinstance(entry, DevicesRemoved):
                self._refresh(entry.user_id)

    def _refresh(self, user_id: str) -> None:
        for queue in self._queues.of_user(user_id):
            queue.refresh()

    def _note_unreachable(self, gateway: str, queue: PusherQueue) -> None:
        self._unreachable.setdefault(gateway, set()).add(queue.pusher.number)

    def _reached(self, gateway: str) -> None:
        """Have the pushers try again that could not reach a gateway."""
        for number in self._unreachable.pop(gateway) or ():
            queue = self._queues.find(number)
            if queue is not None:
                queue.wake(despite_pause=True)

    def _record(self, pusher: Pusher, is_urgent: bool) -> None:
        """Have the progress of a pusher stored.

        At once if it says that the pusher is behind: no later entry may be stored without it. What
        was sent in one iteration of the reactor is one entry.
        """
        self._sent[pusher.number] = pusher
        if is_urgent:
            self._store()
        elif not self._is_storing:
            self._is_storing = True
            self._clock.callLater(0, self._store)

    def _store(self) -> None:
        self._is_storing = False
        if self._sent:
            try:
                position = self._log.next_position()
            except Unavailable as error:
                log.warn("the progress of pushers is stored later: {error}", error=error)
                self._is_storing = True
                self._clock.callLater(STORE_AGAIN_SECONDS, self._store)
                return
            rows = [each.progress.row(number) for number, each in self._sent.items()]
            self._sent = {}
            # Not awaited: the log writes what it has accepted, however long that takes.
            appended = self._log.append(PushProgressStored(position), rows)
            appended.addErrback(lambda _: None)
