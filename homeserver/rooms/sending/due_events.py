"""The sending of delayed events that are due.

A user's events are sent one after the other, in the order of their times; those of several users at
the same time. One that takes long, because another server must be asked, delays no other user: it
continues in the background, and is looked at again a few seconds later, as after a crash. So are
those that exceed the rate limit of their user: who has disappeared cannot send them again.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4140
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.protocol.errors import LimitExceeded, MatrixError, Unavailable
from homeserver.rooms.sending.delayed_senders import DelayedSender
from homeserver.storage.accounts.delayed_events import (
    DelayedEvent,
    due_delayed_events,
    earliest_delayed_event,
    finalise_delayed_event,
    find_delayed_event,
    postpone_delayed_events,
)
from homeserver.storage.database.database import Database
from homeserver.streams.durable_timer import DurableTimer

BATCH = 50
WAIT_SECONDS = 2.0  # for the events of a batch, before the next batch
AGAIN_MS = 5_000  # until one that was not sent yet is looked at again
GIVE_UP_MS = 3_600_000  # after which an event fails that cannot be sent for the moment
log = Logger()


class DueEvents:
    """Sends what is due, and records what became of it. `start` it, and `stop` it.

    `locks`, by delay id, keep an event from being changed while it is sent.
    """

    def __init__(self, db: Database, clock: Clock, sender: DelayedSender) -> None:
        self._db = db
        self._clock = clock
        self._sender = sender
        self._began_ms = now_ms(clock)
        self.locks: KeyedLocks[str] = KeyedLocks()
        self._busy: dict[str, Deferred[Any]] = {}  # by user
        self._timer = DurableTimer(
            db, clock, earliest_delayed_event, self._send_batch, name="sending delayed events"
        )

    def start(self) -> None:
        """Send what became due before, and wait for the rest."""
        self._timer.start()

    def notice(self, due_ms: int) -> None:
        """An event is stored that is due at this time."""
        self._timer.notice(due_ms)

    async def stop(self) -> None:
        """Send no more; returns when what is being sent was sent."""
        await self._timer.stop()
        await DeferredList(list(self._busy.values()), consumeErrors=True)

    async def finalise(
        self, delayed: DelayedEvent, event_id: str | None, error: MatrixError | None = None
    ) -> None:
        """Record what became of a delayed event."""
        body = None if error is None else msgspec.json.encode(error.body())
        now = now_ms(self._clock)
        await self._db.run(finalise_delayed_event, delayed.delay_id, now, event_id, body)

    async def _send_batch(self, now: int) -> None:
        """Send the first events that are due; the timer calls this as long as there are some."""
        rows = await self._db.run(due_delayed_events, now, BATCH)
        by_user: dict[str, list[str]] = {}
        for user_id, delay_id in rows:
            by_user.setdefault(user_id, []).append(delay_id)
        sending = [
            self._begin(user_id, delay_ids)
            for user_id, delay_ids in by_user.items()
            if user_id not in self._busy
        ]
        await self._wait(sending)
        later = now_ms(self._clock) + AGAIN_MS
        await self._db.run(postpone_delayed_events, [each for _, each in rows], now, later)

    def _begin(self, user_id: str, delay_ids: Sequence[str]) -> Deferred[Any]:
        sending = self._busy[user_id] = Deferred.fromCoroutine(self._send_all(delay_ids))

        def ended(result: Any) -> None:
            del self._busy[user_id]
            if isinstance(result, Failure) and not result.check(Unavailable):
                log.failure("delayed events of {user} were not sent", result, user=user_id)

        return sending.addBoth(ended)

    async def _wait(self, sending: Sequence[Deferred[Any]]) -> None:
        """Wait for these, but not long."""
        done: Deferred[None] = Deferred()

        def fire(_: object = None) -> None:
            if not done.called:
                done.callback(None)

        alarm = self._clock.callLater(WAIT_SECONDS, fire)
        DeferredList(sending, consumeErrors=True).addCallback(fire)
        await done
        if alarm.active():
            alarm.cancel()

    async def _send_all(self, delay_ids: Sequence[str]) -> None:
        for delay_id in delay_ids:
            async with self.locks.hold(delay_id):
                delayed = await self._db.run(find_delayed_event, delay_id)
                # A restart or a cancellation may have been faster.
                now = now_ms(self._clock)
                if delayed is None or delayed.due_ms is None or delayed.due_ms > now:
                    continue
                try:
                    await self._send(delayed)
                except LimitExceeded:
                    return  # the next ones would be refused, too

    async def _send(self, delayed: DelayedEvent) -> None:
        """Send an event, and record what became of it. Raises `LimitExceeded` if it has to wait."""
        try:
            event_id = await self._sender.send(delayed)
        except MatrixError as error:
            is_limited = isinstance(error, LimitExceeded)
            is_lasting = error.status < 500 and not is_limited
            # What became due while the server was down is tried for as long as any other.
            since = max(delayed.scheduled_ms + delayed.delay_ms, self._began_ms)
            if is_lasting or now_ms(self._clock) - since > GIVE_UP_MS:
                await self.finalise(delayed, None, error)
            elif is_limited:
                raise
        except Exception:
            # The id may be all that is needed to change the event, and is not logged.
            log.failure("a delayed event of {user} could not be sent", user=delayed.user_id)
            await self.finalise(delayed, None, MatrixError("Internal server error"))
        else:
            await self.finalise(delayed, event_id)
