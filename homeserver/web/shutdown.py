"""The end of the server, told to whoever holds requests or sockets open."""

from collections.abc import Callable

from twisted.logger import Logger

log = Logger()


class Shutdown:
    """Tells long polls and sockets, once, that they should end by themselves.

    `started` says whether that has happened; new waits then do not begin.
    """

    def __init__(self) -> None:
        self.started = False
        self._callbacks: dict[object, Callable[[], None]] = {}

    def notify(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called when the server stops. Returns the function that forgets it."""
        key = object()
        self._callbacks[key] = callback
        return lambda: void(self._callbacks.pop(key, None))

    def begin(self) -> None:
        """Call everybody. A second call does nothing."""
        self.started = True
        callbacks, self._callbacks = list(self._callbacks.values()), {}
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.failure("something could not be ended at shutdown")


def void(_value: object) -> None:
    """Nothing: for functions that are called for what they do."""
