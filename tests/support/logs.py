"""Logs for tests: counters that no database reserves, and entries as another process has them.

Tests that pass with decoded entries show that no subscriber depends on an object that it shares
with the writer. Some test cases always use them; all do if `HOMESERVER_TEST_TRANSCODING` is set.
"""

import os
from collections.abc import Callable
from typing import Any

from homeserver.concurrency.clock import Clock
from homeserver.streams.counters import Counters
from homeserver.streams.event_numbers import EventNumbers
from homeserver.streams.positions import MAX_POSITION, Positions
from homeserver.wiring.entry_kinds import entry_codec

FOR_ALL_TESTS = bool(os.environ.get("HOMESERVER_TEST_TRANSCODING"))


def free_counters(clock: Clock, position: int = 0) -> Counters:
    """Counters that continue above a position, and above an event number as large."""
    return Counters(Positions(clock, position, MAX_POSITION), EventNumbers(position, MAX_POSITION))


def transcoding(*, is_wanted: bool) -> Callable[[Any], Any] | None:
    """The `transcode` of a test's log, if the test wants one or all tests have it."""
    return entry_codec().transcode if is_wanted or FOR_ALL_TESTS else None
