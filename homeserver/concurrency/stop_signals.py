"""SIGINT and SIGTERM: the first asks for an orderly end, the second ends the process at once.

The handlers stand from before the reactor runs until the process ends, so that no signal comes at a
moment at which nobody expects it.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

ENDED_BY_SIGNAL = 128  # what a shell adds to the signal's number, for an exit status


def call_on_stop_signal(reactor: Any, stop: Callable[[], None]) -> None:
    """Call `stop` in the reactor's thread, as soon as it runs, at the first signal to stop.

    Run the reactor with `installSignalHandlers=False`, else it replaces the handlers.
    """
    asked: list[int] = []

    def handle(number: int, _frame: object) -> None:
        if asked:
            # Whatever is not stored by now is as safe as after a loss of power.
            os._exit(ENDED_BY_SIGNAL + number)
        asked.append(number)
        reactor.callFromThread(stop)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
