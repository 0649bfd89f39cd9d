"""Back-off: the pause before the next attempt at something that failed, longer with each failure.

Pure: time and chance are arguments. Without chance, all servers would send requests to a server
at the same moment after it was unavailable.

Spec: https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

import msgspec
from msgspec.structs import replace


class RetrySchedule(msgspec.Struct, frozen=True):
    """The pauses after the first failure, the second, and so on, in seconds; the last one repeats.

    Chance makes a pause longer or shorter by at most `jitter` of it.
    """

    pauses: tuple[float, ...]
    jitter: float = 0.0

    @classmethod
    def doubling(cls, first: float, most: float, *, jitter: float = 0.0) -> "RetrySchedule":
        """Each pause is twice as long as the one before, up to `most` seconds."""
        pauses = [first]
        while pauses[-1] < most:
            pauses.append(min(pauses[-1] * 2, most))
        return cls(tuple(pauses), jitter)

    def pause(self, failures: int, chance: float = 0.5) -> float:
        """Seconds to wait after so many failures in a row; `chance` is 0 to 1."""
        return self.pauses[min(failures, len(self.pauses)) - 1] * (
            1.0 + self.jitter * (2.0 * chance - 1.0)
        )


DESTINATION_RETRIES = RetrySchedule.doubling(2.0, 3_600.0, jitter=0.25)
PAUSE_WHEN_REACHED = 1.0  # seconds
MAX_FAILURES_WHEN_REACHED = 2  # counted for a server that has sent something since


class Backoff(msgspec.Struct, frozen=True):
    """The recorded health of one server; each outcome gives the next value.

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
        """After a failure: a pause by `DESTINATION_RETRIES` and `chance` (0 to 1).

        Failures within a pause do not count, since several requests may fail at once.
        """
        if not self.may_try(now):
            return self
        failures = self.failures + 1
        retry_at = now + DESTINATION_RETRIES.pause(failures, chance)
        return replace(self, failures=failures, failed_at=now, retry_at=retry_at)

    def succeeded(self, now: float) -> "Backoff":
        """After a response."""
        return Backoff(succeeded_at=now)

    def reached(self) -> "Backoff":
        """The other server has sent something, so it is reachable: it can be tried at once.

        If that fails, as it may not be ready yet, the pause is short again. After a very recent
        failure it is tried a moment later: a server that can send, but not receive, would otherwise
        be tried each time that it sends something.
        """
        return replace(
            self,
            failures=min(self.failures, MAX_FAILURES_WHEN_REACHED),
            retry_at=min(self.retry_at, self.failed_at + PAUSE_WHEN_REACHED),
        )
