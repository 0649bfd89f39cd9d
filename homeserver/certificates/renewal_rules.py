"""When a certificate is renewed, and how long the server waits after a failure.

Pure: the time is an argument, in seconds since the epoch.

An authority limits what it refuses: Let's Encrypt allows five failed validations an hour for each
name. So the first pause is a quarter of an hour, whatever happens: an attempt counts as failed
from its beginning, so a server that crashes in the middle of an order and is started again waits
as well.
"""

import msgspec
from msgspec.structs import replace

from homeserver.concurrency.backoff import RetrySchedule

REFUSALS = RetrySchedule.doubling(900.0, 86_400.0)
UNREACHABLE = RetrySchedule.doubling(60.0, 3_600.0)
"""The pauses after the authority could not be reached, and so has counted nothing."""

LONGEST_PAUSE = REFUSALS.pauses[-1]
SHARE_LEFT = 1 / 3  # of the lifetime of a certificate, when it is renewed


class Subject(msgspec.Struct, frozen=True):
    """What a certificate is to be: its names, in lower case, and the directory of its authority."""

    directory: str
    names: frozenset[str]


class OrderedValidity(msgspec.Struct, frozen=True):
    """What a certificate was ordered as, and the time for which it is valid."""

    subject: Subject
    begins: float
    ends: float


def renewal_reason(held: OrderedValidity | None, wanted: Subject, now: float) -> str | None:
    """Why a certificate has to be ordered now; `None` if the one that is held will do."""
    if held is None:
        return "there is none yet"
    if held.subject.directory != wanted.directory:
        return f"the present one was ordered from {held.subject.directory}"
    if held.subject.names != wanted.names:
        return f"the present one is for {', '.join(sorted(held.subject.names))}"
    if now >= held.ends:
        return "the present one has expired"
    if now >= renewed_at(held):
        return "the present one expires soon"
    return None


def renewed_at(held: OrderedValidity) -> float:
    """When a certificate is to be renewed."""
    return held.ends - max(0.0, held.ends - held.begins) * SHARE_LEFT


class Attempts(msgspec.Struct, frozen=True):
    """The failed attempts since the last success; each outcome gives the next value.

    `error` is the reason of the last one. They are those for one subject: what the operator has
    changed since is tried at once.
    """

    subject: Subject | None = None
    failures: int = 0
    failed_at: float = 0.0
    retry_at: float = 0.0
    error: str = ""

    def may_try(self, wanted: Subject, now: float) -> bool:
        """Whether the pause after the last failure is over.

        It is, too, if the clock was set back to before the failure: it would last for longer than
        it was meant to.
        """
        end = min(self.retry_at, self.failed_at + LONGEST_PAUSE)
        return self.subject != wanted or not self.failed_at <= now < end

    def failed(
        self, wanted: Subject, now: float, error: str, *, is_refusal: bool = True
    ) -> "Attempts":
        """After a failure. `is_refusal` is false if the authority could not be reached."""
        failures = (self.failures if self.subject == wanted else 0) + 1
        pause = (REFUSALS if is_refusal else UNREACHABLE).pause(failures)
        return Attempts(wanted, failures, now, now + pause, error)

    def hastened(self) -> "Attempts":
        """The operator asks for an attempt: the pause is no longer than the first one."""
        return replace(self, retry_at=min(self.retry_at, self.failed_at + REFUSALS.pauses[0]))
