"""The queue of one pusher: pushes in order, sent one at a time.

While the gateway accepts them, pushes wait in memory. When it does not, only the position since
which the pusher is behind is recorded, which costs nothing however long it lasts. When the gateway
is back, the events since then that still notify the user are found again, and pushed.

Spec: https://spec.matrix.org/v1.19/push-gateway-api/#homeserver-behaviour
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock, DelayedCall, now_ms
from homeserver.protocol.errors import Unavailable
from homeserver.push.pushers.gateways import Gateways, PushFailed
from homeserver.push.pushers.push_notification import PushNotification
from homeserver.push.pushers.pusher import Pusher
from homeserver.push.pushers.queued_push import QueuedPush
from homeserver.push.pushers.shared_requests import SharedRequests
from homeserver.storage.database.database import DatabaseUnavailable

MAX_WAITING = 100  # pushes that wait in memory for one pusher
RETRIES = RetrySchedule((1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0), jitter=0.2)
MAX_REFUSALS = 5  # of one push, by a gateway that responds
log = Logger()


class NotificationSource(Protocol):
    """Makes what is sent, as late as possible."""

    async def of_event(self, pusher: Pusher, push: QueuedPush) -> PushNotification | None:
        """The notification of an event; `None` if the user need not be notified any more."""

    async def of_counts(self, pusher: Pusher) -> PushNotification | None:
        """The notification with the present counts; `None` if the device has them."""


class MissedPushes(Protocol):
    """Finds what a pusher has missed."""

    @property
    def position(self) -> int:
        """The position up to which everything can be found now."""

    async def after(
        self, pusher: Pusher, after: int, upto: int
    ) -> tuple[Sequence[QueuedPush], int]:
        """The next pushes after a position, oldest first, and the position up to which they are.

        There are none if this position is `upto`.
        """


class PushContext(msgspec.Struct, frozen=True):
    """The collaborators of a `PusherQueue`.

    `current` gives the pusher as it is now, if it is still there, mostly without waiting;
    `record(pusher, is_urgent)` has its progress stored; `rejected` deletes it;
    `unreachable(gateway, queue)` notes a gateway that did not respond, and `ended(queue)` that
    there is nothing left to send.
    """

    gateways: Gateways
    requests: SharedRequests
    notifications: NotificationSource
    missed: MissedPushes
    clock: Clock
    chance: Callable[[], float]
    current: Callable[[Pusher], Awaitable[Pusher | None]]
    record: Callable[[Pusher, bool], None]
    rejected: Callable[[Pusher], Awaitable[None]]
    unreachable: Callable[[str, "PusherQueue"], None]
    ended: Callable[["PusherQueue"], None]


class PusherQueue:
    """What one pusher has to send."""

    def __init__(self, pusher: Pusher, context: PushContext) -> None:
        self.pusher = pusher
        self._context = context
        self._waiting: deque[QueuedPush] = deque()
        self._wants_counts = False
        self._found_upto = 0  # what was missed up to this position is waiting, or was sent
        self._skipped_upto = 0  # the position of the last push that was not put into the queue
        self._is_stale = False
        self._failures = 0
        self._refusals = 0  # of the first push
        self._alarm: DelayedCall | None = None
        self._task: Deferred[None] | None = None
        self._is_running = False
        self._is_stopped = False

    @property
    def first_position(self) -> int | None:
        """The position of the oldest push that is in memory only."""
        if not self._waiting or self.pusher.progress.behind_since is not None:
            return None
        return self._waiting[0].position

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to send, and no pause."""
        return not (self._has_work or self._is_running or self._alarm is not None)

    @property
    def is_active(self) -> bool:
        """Whether it is sending, or will be after a pause."""
        return self._is_running or self._alarm is not None

    @property
    def _has_work(self) -> bool:
        is_behind = self.pusher.progress.behind_since is not None
        return bool(self._waiting) or self._wants_counts or is_behind

    def put(self, push: QueuedPush) -> None:
        """Add a push, unless it was sent before or will be found again."""
        progress = self.pusher.progress
        if push.position <= progress.sent_upto:
            return
        is_full = self._alarm is not None or len(self._waiting) >= MAX_WAITING
        if progress.behind_since is None:
            self._waiting.append(push)
            if is_full:
                self._fall_behind()
            else:
                self.wake()
        if progress.behind_since is not None:
            self._skipped_upto = push.position

    def put_counts(self) -> None:
        """Send the counts of unread messages, if they are not those that were sent last."""
        self._wants_counts = True
        self.wake()

    def refresh(self) -> None:
        """The pusher was changed: have it read again, and try its gateway at once."""
        self._is_stale = True
        self.wake(despite_pause=True)

    def wake(self, *, despite_pause: bool = False) -> None:
        """Start sending, unless the queue pauses after a failure."""
        if self._alarm is not None:
            if not despite_pause:
                return
            self._alarm.cancel()
            self._alarm = None
        if not self._is_running and not self._is_stopped:
            self._is_running = self._is_stale = True
            self._task = Deferred.fromCoroutine(self._run())
            self._task.addErrback(self._crashed)

    def pause(self, seconds: float) -> None:
        """Start sending later, what a former process has left."""
        self._failures = 1
        self._pause(seconds)

    def stop(self) -> None:
        """Send nothing more."""
        self._is_stopped = True
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._is_running and self._task is not None:
            self._task.cancel()

    def _crashed(self, failure: Any) -> None:
        self._is_running = False
        if not self._is_stopped:
            if not failure.check(Unavailable, DatabaseUnavailable):
                log.failure("a push failed", failure)
                self._refusals += 1
            self._pause_after_failure()

    async def _run(self) -> None:
        try:
            while self._has_work or self._is_stale:
                if self._is_stale and not await self._read_again():
                    break
                await self._step()
        except PushFailed as error:
            self._is_running = False
            log.debug("{gateway}: {error}", gateway=self.pusher.gateway, error=error)
            self._refusals += error.status is not None
            self._pause_after_failure()
            if error.status is None:
                self._context.unreachable(self.pusher.gateway, self)
            return
        self._is_running = False
        if self.is_idle:
            self._context.ended(self)

    async def _read_again(self) -> bool:
        """Read the pusher again; false if it is gone, and the queue with it."""
        self._is_stale = False
        pusher = await self._context.current(self.pusher)
        if pusher is None or not pusher.is_pushing:
            self._drop_all()
            return False
        if pusher is not self.pusher:
            former, self.pusher = self.pusher.progress, pusher
            pusher.progress.sent_upto = max(former.sent_upto, pusher.progress.sent_upto)
            pusher.progress.badge = former.badge
            pusher.progress.behind_since = former.behind_since
            pusher.progress.failing_since_ms = former.failing_since_ms
        return True

    def _drop_all(self) -> None:
        self._waiting.clear()
        self._wants_counts = False
        self.pusher.progress.behind_since = None

    async def _step(self) -> None:
        """Do the next thing: send a push, find what was missed, or send the counts."""
        if self._waiting:
            await self._send_first()
        elif self.pusher.progress.behind_since is not None:
            await self._find_missed(self.pusher.progress.behind_since)
        elif self._wants_counts:
            self._wants_counts = False
            await self._send_counts()

    async def _find_missed(self, since: int) -> None:
        """Put the next pushes that were missed into the queue, until there are none."""
        missed, progress = self._context.missed, self.pusher.progress
        upto = missed.position
        after = max(progress.sent_upto, self._found_upto, since - 1)
        pushes, self._found_upto = await missed.after(self.pusher, after, upto)
        self._waiting.extend(pushes)
        if not pushes and self._skipped_upto <= upto:
            progress.sent_upto = max(progress.sent_upto, upto)
            progress.behind_since = progress.failing_since_ms = None
            self._wants_counts = True
            self._context.record(self.pusher, True)

    async def _send_first(self) -> None:
        context, push = self._context, self._waiting[0]
        pusher = self.pusher
        async with context.gateways.slot(self.pusher.gateway):
            notification = await context.notifications.of_event(pusher, push)
            if notification is not None:
                await self._notify(notification)
        if self._waiting and self._waiting[0] is push:
            self._waiting.popleft()
        progress = pusher.progress
        progress.sent_upto = max(progress.sent_upto, push.position)
        self._refusals = 0
        if notification is not None:
            context.record(pusher, False)

    async def _send_counts(self) -> None:
        notification = await self._context.notifications.of_counts(self.pusher)
        if notification is not None:
            try:
                async with self._context.gateways.slot(self.pusher.gateway):
                    await self._notify(notification)
            except PushFailed:
                self._wants_counts = True
                raise
            self._context.record(self.pusher, False)

    async def _notify(self, notification: PushNotification) -> None:
        pusher = self.pusher
        rejected = await self._context.requests.notify(pusher, notification)
        self._failures = 0
        pusher.progress.badge = notification.badge
        if pusher.row.pushkey in rejected:
            log.info(
                "{gateway} rejects a pushkey: the pusher is deleted", gateway=self.pusher.gateway
            )
            await self._context.rejected(pusher)
            self._drop_all()

    def _pause_after_failure(self) -> None:
        """Pause, and record since when events are missing instead of keeping them."""
        self._failures += 1
        progress = self.pusher.progress
        if self._waiting and self._refusals >= MAX_REFUSALS:
            # The gateway responds, so it may be the push that it does not like.
            progress.sent_upto = max(progress.sent_upto, self._waiting[0].position)
            self._refusals = 0
        if progress.failing_since_ms is None:
            progress.failing_since_ms = now_ms(self._context.clock)
        self._fall_behind()
        self._pause(RETRIES.pause(self._failures, self._context.chance()))

    def _fall_behind(self) -> None:
        """Keep nothing in memory but the position since which events are missing."""
        progress = self.pusher.progress
        self._found_upto = 0
        if self._waiting:
            if progress.behind_since is None:
                progress.behind_since = self._waiting[0].position
            self._waiting.clear()
            self._context.record(self.pusher, True)

    def _pause(self, seconds: float) -> None:
        if not self._is_stopped and self._alarm is None:
            self._alarm = self._context.clock.callLater(seconds, self._pause_over)

    def _pause_over(self) -> None:
        self._alarm = None
        self.wake()
