"""The shutdown of the server, with callbacks for open requests and sockets."""

from collections.abc import Callable

from twisted.logger import Logger

log = Logger()


class Shutdown:
    """A notification, sent once, that long polls and sockets should end.

    `started` says whether that has happened; new waits then do not begin.
    """

    def __init__(self) -> None:
        self.started = False
        self._callbacks: dict[object, Callable[[], None]] = {}

    def notify(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Register `callback` for the server's stop. Returns the function that removes it."""
        key = object()
        self._callbacks[key] = callback
        return lambda: void(self._callbacks.pop(key, None))

    def begin(self) -> None:
        """Call all callbacks. A second call does nothing."""
        self.started = True
        callbacks, self._callbacks = list(self._callbacks.values()), {}
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.failure("a callback failed at shutdown")


def void(_value: object) -> None:
    """Do nothing: for functions that are called only for their effect."""
