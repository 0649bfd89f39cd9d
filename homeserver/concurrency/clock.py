"""The clock: monotonic time for timers, and wall-clock time.

Timers and durations use `seconds()`, which never jumps: setting the wall clock must neither end a
wait nor make it last for hours. Times that are sent to or compared with those of other servers,
clients or earlier processes use `wall_seconds`.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol


class DelayedCall(Protocol):
    """A scheduled call."""

    def cancel(self) -> None: ...

    def active(self) -> bool: ...


class Clock(Protocol):
    """The used part of `twisted.internet.interfaces.IReactorTime`."""

    def seconds(self) -> float:
        """Monotonic seconds since an unspecified moment."""

    def callLater(  # the name is Twisted's
        self,
        delay: float,
        callable: Callable[..., Any],  # noqa: A002
        *args: Any,
        **kw: Any,
    ) -> DelayedCall:
        """Call it after `delay` seconds."""


def wall_seconds(clock: Clock) -> float:
    """The wall-clock time of a clock, in seconds since the epoch.

    For a clock that has no `wall_seconds` of its own, such as a test clock, that is its `seconds`.
    """
    read: Callable[[], float] = getattr(clock, "wall_seconds", clock.seconds)
    return read()


def now_ms(clock: Clock) -> int:
    """The wall-clock time in milliseconds since the epoch, as in the protocol."""
    return int(wall_seconds(clock) * 1000)


def steady(reactor: Any) -> Any:
    """Make a reactor's timers use the monotonic clock; returns the reactor.

    Twisted's timers use the wall clock, so setting that back by an hour stops them all for an hour.
    `seconds()` begins with the time since the epoch, but later changes of the wall clock do not
    affect it. Call it before any timer starts.
    """
    offset = time.time() - time.monotonic()
    reactor.seconds = lambda: offset + time.monotonic()
    reactor.wall_seconds = time.time
    return reactor
