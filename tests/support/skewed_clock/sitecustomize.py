"""Sets Python's clock ahead or behind: put this folder on PYTHONPATH of a process.

Python runs this module before all others. `CLOCK_SKEW_SECONDS` is the difference; monotonic clocks
stay unchanged, and so does the clock of the database. At each SIGUSR2 the clock jumps by
`CLOCK_JUMP_SECONDS`.
"""

import os
import signal
import time

_true_time, _true_time_ns = time.time, time.time_ns
_skew = float(os.environ["CLOCK_SKEW_SECONDS"])
_jump = float(os.environ.get("CLOCK_JUMP_SECONDS", "0"))


def _skewed_time() -> float:
    return _true_time() + _skew


def _skewed_time_ns() -> int:
    return _true_time_ns() + int(_skew * 1e9)


def _set_clock(*_: object) -> None:
    global _skew
    _skew += _jump


signal.signal(signal.SIGUSR2, _set_clock)
time.time, time.time_ns = _skewed_time, _skewed_time_ns
