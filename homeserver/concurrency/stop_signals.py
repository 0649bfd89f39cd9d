"""SIGINT and SIGTERM: the first requests an orderly stop, the second ends the process at once.

The handlers are installed from before the reactor runs until the process ends, so that no signal is
unhandled.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

# make, timeout and supervisors may forward a signal that the process also gets itself.
SAME_SIGNAL_SECONDS = 0.3
ENDED_BY_SIGNAL = 128  # added to the signal's number for the exit status, as shells do


def call_on_stop_signal(reactor: Any, stop: Callable[[], None]) -> None:
    """Call `stop` in the reactor's thread, as soon as it runs, at the first signal to stop.

    Run the reactor with `installSignalHandlers=False`, else it replaces the handlers.
    """
    received: list[float] = []

    def handle(number: int, _frame: object) -> None:
        now = time.monotonic()
        if received and now - received[0] < SAME_SIGNAL_SECONDS:
            return
        if received:
            # Data that is not stored by now is as safe as after a power failure.
            os._exit(ENDED_BY_SIGNAL + number)
        received.append(now)
        reactor.callFromThread(stop)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
