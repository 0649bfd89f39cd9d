"""Has Python's clock go ahead or behind: put this folder on PYTHONPATH of a process.

Python runs this module before all others. `CLOCK_SKEW_SECONDS` says by how much; the clocks that
measure how long something takes stay as they are, and so does that of the database.
"""

import os
import time

_true_time, _true_time_ns = time.time, time.time_ns
_skew = float(os.environ["CLOCK_SKEW_SECONDS"])


def _skewed_time() -> float:
    return _true_time() + _skew


def _skewed_time_ns() -> int:
    return _true_time_ns() + int(_skew * 1e9)


time.time, time.time_ns = _skewed_time, _skewed_time_ns
