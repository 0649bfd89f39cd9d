"""The clock that everything waits by: the reactor, or one that a test advances."""

from collections.abc import Callable
from typing import Any, Protocol


class DelayedCall(Protocol):
    """A call that is due later."""

    def cancel(self) -> None: ...

    def active(self) -> bool: ...


class Clock(Protocol):
    """What is used of `twisted.internet.interfaces.IReactorTime`."""

    def seconds(self) -> float:
        """Seconds since the epoch."""

    def callLater(  # the name is Twisted's
        self,
        delay: float,
        callable: Callable[..., Any],  # noqa: A002
        *args: Any,
        **kw: Any,
    ) -> DelayedCall:
        """Call it after `delay` seconds."""
