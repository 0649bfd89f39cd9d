"""The clock that everything waits by, and what time it is.

Timers and the lengths of waits go by `seconds()`, which never jumps: a wall clock that is set must
neither end a wait nor make it last for hours. What other servers and clients are told, and what is
compared with what they say or with what an earlier process stored, goes by `wall_seconds`.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol


class DelayedCall(Protocol):
    """A call that is due later."""

    def cancel(self) -> None: ...

    def active(self) -> bool: ...


class Clock(Protocol):
    """What is used of `twisted.internet.interfaces.IReactorTime`."""

    def seconds(self) -> float:
        """Seconds that pass evenly, since a moment that is not to be relied on."""

    def callLater(  # the name is Twisted's
        self,
        delay: float,
        callable: Callable[..., Any],  # noqa: A002
        *args: Any,
        **kw: Any,
    ) -> DelayedCall:
        """Call it after `delay` seconds."""


def wall_seconds(clock: Clock) -> float:
    """The wall clock's time by a clock, in seconds since the epoch.

    A clock that has no `wall_seconds` of its own, such as one that a test advances, is both.
    """
    read: Callable[[], float] = getattr(clock, "wall_seconds", clock.seconds)
    return read()


def now_ms(clock: Clock) -> int:
    """What the wall clock shows, in milliseconds since the epoch, as the protocol counts."""
    return int(wall_seconds(clock) * 1000)


def steady(reactor: Any) -> Any:
    """Have a reactor's timers go by the monotonic clock; gives the reactor.

    Twisted's go by the wall clock, so that one that is set back by an hour stops them all for an
    hour. What `seconds()` gives begins as the time since the epoch, but no later change of the wall
    clock moves it. To be called before anything waits.
    """
    offset = time.time() - time.monotonic()
    reactor.seconds = lambda: offset + time.monotonic()
    reactor.wall_seconds = time.time
    return reactor
