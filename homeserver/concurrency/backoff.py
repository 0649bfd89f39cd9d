"""How long a server that failed is left alone: longer with each failure, and not exactly.

Pure: time and chance are arguments. Without chance all servers would come back to a server at the
same moment after it was away.

Spec: https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from dataclasses import dataclass, replace

FIRST_PAUSE = 2.0  # seconds
MAX_PAUSE = 3_600.0  # seconds
PAUSE_WHEN_HEARD = 1.0  # seconds
FAILURES_WHEN_HEARD = 2  # that count at most of a server that has sent something since


@dataclass(frozen=True, slots=True)
class Backoff:
    """What is known of one server; each outcome gives the next value.

    Times are seconds since the epoch. `failures` counts those since the last success.
    """

    failures: int = 0
    failed_at: float = 0.0
    retry_at: float = 0.0
    succeeded_at: float | None = None

    def may_try(self, now: float) -> bool:
        """Whether the pause after the last failure is over."""
        return now >= self.retry_at

    def failed(self, now: float, chance: float) -> "Backoff":
        """After a failure: a pause twice as long as the last one, from 3/4 to 5/4 of it by
        `chance` (0 to 1). What fails within a pause, as several requests may at once, counts once.
        """
        if not self.may_try(now):
            return self
        pause = min(FIRST_PAUSE * 2.0 ** min(self.failures, 16), MAX_PAUSE)
        retry_at = now + pause * (0.75 + chance / 2)
        return replace(self, failures=self.failures + 1, failed_at=now, retry_at=retry_at)

    def succeeded(self, now: float) -> "Backoff":
        """After an answer."""
        return Backoff(succeeded_at=now)

    def reached(self) -> "Backoff":
        """The other side has sent something, so it is there again: it can be tried at once.

        If that fails, as it may not be ready yet, the pause is a short one again. Not quite at once
        where it failed just now: a server that can send, but not receive, would otherwise be tried
        each time that it sends something.
        """
        return replace(
            self,
            failures=min(self.failures, FAILURES_WHEN_HEARD),
            retry_at=min(self.retry_at, self.failed_at + PAUSE_WHEN_HEARD),
        )
