"""The slots in which mails about unread messages are sent: few at a time, one to a domain.

They leave connections for mails that a user waits for. When the mail server cannot be reached, all
pause together: what it would have been sent waits in the database.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from twisted.internet.defer import DeferredSemaphore

from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.keyed_locks import KeyedLocks

MAX_AT_ONCE = 2
RETRIES = RetrySchedule((30.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0), jitter=0.2)


class MailSlots:
    """Slots by the domain of an address.

    `accepted_mails`, `refused_mails` and `failed_mails` count what was tried since the start.
    """

    def __init__(self, clock: Clock, chance: Callable[[], float]) -> None:
        self._clock = clock
        self._chance = chance
        self._domains: KeyedLocks[str] = KeyedLocks()
        self._all = DeferredSemaphore(MAX_AT_ONCE)
        self._failures = 0
        self._paused_until = 0.0  # on the clock, which no change of the time affects
        self.accepted_mails = 0
        self.refused_mails = 0
        self.failed_mails = 0

    @asynccontextmanager
    async def hold(self, address: str) -> AsyncIterator[None]:
        """A context in which a mail may be sent to an address."""
        async with self._domains.hold(address.rpartition("@")[2]):
            await self._all.acquire()
            try:
                yield
            finally:
                self._all.release()

    @property
    def pause_seconds(self) -> float:
        """How long no mail is sent from now on; zero without a pause."""
        return max(0.0, self._paused_until - self._clock.seconds())

    def failed(self) -> None:
        """The mail server could not be reached, or refused everything."""
        self.failed_mails += 1
        if not self.pause_seconds:
            self._failures += 1
            pause = RETRIES.pause(self._failures, self._chance())
            self._paused_until = self._clock.seconds() + pause

    def succeeded(self) -> None:
        """The mail server has accepted a mail."""
        self.accepted_mails += 1
        self._resume()

    def refused(self) -> None:
        """The mail server has refused a mail; it may accept others."""
        self.refused_mails += 1
        self._resume()

    def _resume(self) -> None:
        self._failures = 0
        self._paused_until = 0.0
