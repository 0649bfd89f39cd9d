"""The pending mail of one pusher: events that wait for the time at which they are mailed.

No event is in memory: the position since which some wait is stored, and when the time has come, the
events since then that still notify the user are found. What was mailed, and how far, is stored in
the same row. Before a mail is sent, it is stored how far it goes: after a crash in between, the
same mail is sent once more with the same Message-ID, so in doubt a mail comes twice and is never
lost.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock, DelayedCall, now_ms, wall_seconds
from homeserver.protocol.errors import InvalidParam, MailNotSent, MailRefused, Unavailable
from homeserver.push.email.digest_state import RoomPause, is_quiet, next_pause, noted_at
from homeserver.push.email.mail_slots import MailSlots
from homeserver.push.pushers.pusher import Pusher
from homeserver.push.pushers.queued_push import QueuedPush
from homeserver.storage.database.database import DatabaseUnavailable

MAX_EVENTS = 200  # that a mail is about
MAX_CHUNKS = 50  # of events that are looked at for one mail
STOP_SECONDS = 3.0  # that a mail has to arrive when the server stops
REFUSED = RetrySchedule((900.0, 3_600.0, 14_400.0), jitter=0.2)
GIVE_UP_MS = 86_400_000  # of refusals
ERROR_SECONDS = 60.0
MAX_CRASHES = 5
log = Logger()


class UnreadEvents(Protocol):
    """Finds what may be mailed."""

    @property
    def position(self) -> int:
        """The position up to which everything can be found now."""

    async def after(
        self, pusher: Pusher, after: int, upto: int
    ) -> tuple[Sequence[QueuedPush], int]:
        """The next events after a position, oldest first, and the position up to which they are."""


class DigestContext(msgspec.Struct, frozen=True):
    """The collaborators of a `PendingDigest`.

    `current` gives the pusher as it is now; `record(pusher)` stores its progress, and fires when it
    is durable; `was_read(user_id, room_nid, position)` says whether the user has read in a room
    since; `send(pusher, pushes, upto)` sends a mail; `rejected` deletes the pusher; `ended(digest)`
    says that nothing waits any more. `delay` is in seconds.
    """

    unread: UnreadEvents
    slots: MailSlots
    clock: Clock
    chance: Callable[[], float]
    delay: float
    current: Callable[[Pusher], Awaitable[Pusher | None]]
    record: Callable[[Pusher], Awaitable[None]]
    was_read: Callable[[str, int, int], Awaitable[bool]]
    send: Callable[[Pusher, Sequence[QueuedPush], int], Awaitable[None]]
    rejected: Callable[[Pusher], Awaitable[None]]
    ended: Callable[["PendingDigest"], None]


class PendingDigest:
    """What one pusher has to mail. Times are seconds since the epoch."""

    def __init__(self, pusher: Pusher, context: DigestContext) -> None:
        self.pusher = pusher
        self._context = context
        self._newest = 0  # the position of the newest event that was put
        self._seen_upto = 0  # the position at which the user was active last
        self._paused_until: dict[int, float] = {}  # by room nid
        self._refusals = 0
        self._crashes = 0
        self._alarm: DelayedCall | None = None
        self._due = 0.0
        self._task: Deferred[None] | None = None
        self._is_running = False
        self._is_stopped = False
        self.is_sending = False

    def put(self, position: int, room_nid: int) -> bool:
        """Note an event; true if it is the first one that waits, which is to be stored."""
        progress = self.pusher.progress
        is_first = progress.behind_since is None
        if is_first:
            progress.behind_since = position
            progress.digest = replace(progress.digest, waiting_since=self._now)
        self._newest = max(self._newest, position)
        self._wake_at(max(self._now + self._context.delay, self._paused_until.get(room_nid, 0.0)))
        return is_first

    def resume(self, seconds: float) -> None:
        """Continue with what a former process has left, after some seconds at the earliest."""
        self._wake_at(max(self._now + seconds, self._waiting_since + self._context.delay))

    def seen(self, position: int) -> bool:
        """The user was active: nothing before needs a mail. True if that is to be stored."""
        self._seen_upto = position
        if self._is_running or self.pusher.progress.behind_since is None:
            return False
        self._settle(position)
        self._end_if_idle()
        return True

    def refresh(self) -> None:
        """The pusher was changed: have it read again."""
        self._wake_at(self._now)

    async def stop(self) -> None:
        """Begin nothing more; a mail that is being sent has a moment to arrive."""
        self._is_stopped = True
        self._cancel_alarm()
        if self._is_running and self._task is not None:
            if self.is_sending:
                alarm = self._context.clock.callLater(STOP_SECONDS, self._task.cancel)
                await self._task
                if alarm.active():
                    alarm.cancel()
            else:
                self._task.cancel()

    @property
    def _now(self) -> float:
        return wall_seconds(self._context.clock)

    @property
    def _waiting_since(self) -> float:
        since = self.pusher.progress.digest.waiting_since
        return self._now if since is None else min(since, self._now)

    def _noted_at(self, push: QueuedPush) -> float:
        sent_ms = push.stored.event.origin_server_ts
        return noted_at(sent_ms, self._waiting_since, self._now)

    def _wake_at(self, due: float) -> None:
        if self._is_stopped or (self._alarm is not None and self._due <= due):
            return
        self._cancel_alarm()
        self._due = due
        self._alarm = self._context.clock.callLater(max(0.0, due - self._now), self._wake)

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _wake(self) -> None:
        self._alarm = None
        if not (self._is_running or self._is_stopped):
            self._is_running = True
            self._task = Deferred.fromCoroutine(self._run())
            self._task.addErrback(self._crashed)

    def _crashed(self, failure: Any) -> None:
        self._is_running = False
        if not self._is_stopped:
            log.failure("a mail about unread messages failed", failure)

    async def _run(self) -> None:
        try:
            # Everything is read in a slot, so that many mails at once leave the database to others.
            slots = self._context.slots
            async with slots.hold(self.pusher.row.pushkey):
                if slots.pause_seconds:
                    scatter = self._context.chance() * ERROR_SECONDS
                    self._wake_at(self._now + slots.pause_seconds + scatter)
                elif await self._read_again() and self.pusher.progress.behind_since is not None:
                    await self._mail()
        except (InvalidParam, MailRefused) as error:
            self._context.slots.refused()
            await self._refused(error)
        except MailNotSent:
            # This says nothing about the mail: it is tried until the mail server is back.
            self._context.slots.failed()
            self._wake_at(self._now + self._context.slots.pause_seconds)
        except (Unavailable, DatabaseUnavailable) as error:
            log.warn("a mail waits: {error}", error=error)
            self._wake_at(self._now + ERROR_SECONDS)
        except Exception:
            if not self._is_stopped:
                await self._after_crash()
        self._is_running = False
        if self.pusher.progress.behind_since is not None and self._alarm is None:
            # What came meanwhile has an alarm, unless that has gone off.
            self._wake_at(self._now + self._context.delay)
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._alarm is None and not (self._is_running or self._is_stopped):
            self._context.ended(self)

    async def _read_again(self) -> bool:
        """Read the pusher again; false if it is gone."""
        pusher = await self._context.current(self.pusher)
        if pusher is None or not pusher.is_mailing:
            self.pusher.progress.behind_since = None
            self._cancel_alarm()
            return False
        if pusher is not self.pusher:
            pusher.progress = self.pusher.progress
            self.pusher = pusher
        return True

    async def _mail(self) -> None:
        """Send a mail, if it is time."""
        context, progress = self._context, self.pusher.progress
        interrupted = progress.digest.mailing
        upto = interrupted or context.unread.position
        pushes = await self._find(upto)
        pauses = await self._pauses_of(pushes)
        pushes = [push for push in pushes if push.position > self._seen_upto]
        if pushes and interrupted is None:
            due = min(self._due_of(push, pauses) for push in pushes)
            if due > self._now:
                self._wake_at(due)
                return
            progress.digest = replace(progress.digest, mailing=upto)
            await context.record(self.pusher)
        if pushes:
            await self._send(pushes, upto)
            rooms = {push.room_nid for push in pushes}
            nexts = {nid: next_pause(pauses.get(nid), context.delay) for nid in rooms}
            progress.digest = progress.digest.mailed(nexts, upto, self._now)
        # More may have come after the mail that a former process was sending.
        self._settle(upto, has_more=interrupted is not None)
        await context.record(self.pusher)

    async def _send(self, pushes: Sequence[QueuedPush], upto: int) -> None:
        self.is_sending = True
        try:
            await self._context.send(self.pusher, pushes, upto)
        finally:
            self.is_sending = False
        self._context.slots.succeeded()
        self._refusals = self._crashes = 0

    async def _find(self, upto: int) -> list[QueuedPush]:
        """The newest events up to a position that still notify the user, oldest first."""
        progress = self.pusher.progress
        at = max(progress.sent_upto, (progress.behind_since or 0) - 1, self._seen_upto)
        found: deque[QueuedPush] = deque(maxlen=MAX_EVENTS)
        for _ in range(MAX_CHUNKS):
            pushes, at = await self._context.unread.after(self.pusher, at, upto)
            found.extend(pushes)
            if at >= upto:
                break
        return list(found)

    async def _pauses_of(self, pushes: Sequence[QueuedPush]) -> dict[int, RoomPause]:
        """The pauses of rooms, without those of rooms that were read, or quiet for a day."""
        firsts: dict[int, QueuedPush] = {}
        for push in pushes:
            firsts.setdefault(push.room_nid, push)
        pauses: dict[int, RoomPause] = {}
        for room_nid, first in firsts.items():
            pause = self.pusher.progress.digest.rooms.get(room_nid)
            if pause is None or is_quiet(pause, self._noted_at(first), self._now):
                continue
            user_id = self.pusher.row.user_id
            if not await self._context.was_read(user_id, room_nid, pause.position):
                pauses[room_nid] = pause
        self._paused_until = {nid: pause.ends_at for nid, pause in pauses.items()}
        return pauses

    def _due_of(self, push: QueuedPush, pauses: Mapping[int, RoomPause]) -> float:
        """When an event may cause a mail."""
        pause = pauses.get(push.room_nid)
        due = self._noted_at(push) + self._context.delay
        return due if pause is None else max(due, pause.ends_at)

    def _settle(self, upto: int, *, has_more: bool = False) -> None:
        """Note that everything up to a position was mailed, or need not be."""
        progress = self.pusher.progress
        progress.sent_upto = max(progress.sent_upto, upto)
        is_behind = has_more or self._newest > upto
        progress.behind_since = upto + 1 if is_behind else None
        progress.failing_since_ms = None
        since = self._now if is_behind else None
        progress.digest = replace(progress.digest, mailing=None, waiting_since=since)
        if not is_behind:
            self._cancel_alarm()

    async def _refused(self, error: InvalidParam | MailRefused) -> None:
        """The mail server does not take this mail: try again later, but not without end."""
        progress, user_id = self.pusher.progress, self.pusher.row.user_id
        upto = progress.digest.mailing or progress.sent_upto
        since = progress.failing_since_ms or now_ms(self._context.clock)
        if now_ms(self._context.clock) - since < GIVE_UP_MS:
            self._refusals += 1
            progress.digest = replace(progress.digest, mailing=None)
            progress.failing_since_ms = since
            await self._context.record(self.pusher)
            pause = REFUSED.pause(self._refusals, self._context.chance())
            self._wake_at(self._now + pause)
        elif isinstance(error, InvalidParam):
            log.info("{user_id} gets no more mails: {error}", user_id=user_id, error=error)
            await self._context.rejected(self.pusher)
            self._newest = 0
            self._settle(upto)
        else:
            log.info("a mail to {user_id} was refused too often", user_id=user_id)
            self._settle(upto)
            await self._context.record(self.pusher)

    async def _after_crash(self) -> None:
        """A mail that can never be made must not keep all others from being sent."""
        log.failure("a mail to {user_id} failed", user_id=self.pusher.row.user_id)
        self._crashes += 1
        if self._crashes < MAX_CRASHES:
            self._wake_at(self._now + ERROR_SECONDS)
            return
        self._crashes = 0
        self._settle(self.pusher.progress.digest.mailing or self._context.unread.position)
        await self._context.record(self.pusher)
