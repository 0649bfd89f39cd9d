"""SIGINT and SIGTERM: the first asks for an orderly end, the second ends the process at once.

The handlers stand from before the reactor runs until the process ends, so that no signal comes at a
moment at which nobody expects it.
"""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

SAME_SIGNAL_SECONDS = 0.3  # make, timeout and supervisors may pass one on that came anyway
ENDED_BY_SIGNAL = 128  # what a shell adds to the signal's number, for an exit status


def call_on_stop_signal(reactor: Any, stop: Callable[[], None]) -> None:
    """Call `stop` in the reactor's thread, as soon as it runs, at the first signal to stop.

    Run the reactor with `installSignalHandlers=False`, else it replaces the handlers.
    """
    asked: list[float] = []

    def handle(number: int, _frame: object) -> None:
        now = time.monotonic()
        if asked and now - asked[0] < SAME_SIGNAL_SECONDS:
            return
        if asked:
            # Whatever is not stored by now is as safe as after a loss of power.
            os._exit(ENDED_BY_SIGNAL + number)
        asked.append(now)
        reactor.callFromThread(stop)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
