"""Python's garbage collection, scheduled for a server.

A full collection visits every object of the process, which takes a tenth of a second or more if the
caches are full, and stops everything else. Nearly all garbage here is freed without it, by
reference counts; a few cycles remain. So full collections are not left to Python, which starts them
at the busiest moments: they run when the process is idle, and only rarely when it never is; and not
before there are enough new objects that some of them may be garbage.

These are settings of the whole process, so a program has one of these, however many servers it
runs.
"""

import gc
import time

from twisted.internet.interfaces import IReactorTime

from homeserver.concurrency.periodic import PeriodicTask

# The objects that stay are examined once while they are young, a microsecond each where many rooms
# are read: less than 20 ms together. After that only a full collection examines them.
GC_THRESHOLD0 = 10_000  # new objects between two of the short collections
GC_THRESHOLD1 = GC_THRESHOLD2 = 1_000_000
TICK_SECONDS = 5.0
IDLE_CPU_FRACTION = 0.1  # of a processor, over one tick
AFTER_SECONDS = 60.0  # between two full collections, in a quiet process
MAX_INTERVAL_SECONDS = 1_800.0  # in a process that is never idle
WORTHWHILE = 10  # short collections since the last full one: so many new objects are there


class GarbageCollection:
    """A scheduler of full garbage collections."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._collected_at = 0.0
        self._short_before = 0  # short collections, up to the last full one
        self._used = 0.0
        self._ticking = PeriodicTask(clock, TICK_SECONDS, self._tick, name="garbage collection")

    def start(self) -> None:
        """Take over from Python. Existing objects, mostly code, are excluded permanently.

        They are not collected before: hardly any is garbage, and the first requests would wait.
        """
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD0, GC_THRESHOLD1, GC_THRESHOLD2)
        self._collected_at = self._clock.seconds()
        self._short_before = _short_collections()
        self._used = time.process_time()
        self._ticking.start()

    def _tick(self) -> None:
        used, before = time.process_time(), self._used
        self._used = used
        waited = self._clock.seconds() - self._collected_at
        is_quiet = used - before < IDLE_CPU_FRACTION * TICK_SECONDS
        is_time = (is_quiet and waited >= AFTER_SECONDS) or waited >= MAX_INTERVAL_SECONDS
        if is_time and _short_collections() - self._short_before >= WORTHWHILE:
            gc.collect()
            self._collected_at = self._clock.seconds()
            self._short_before = _short_collections()


def _short_collections() -> int:
    """The number of short collections since the process began."""
    return int(gc.get_stats()[0]["collections"])
