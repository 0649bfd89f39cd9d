"""Logs that publish entries as another process decodes them, with objects of their own.

Tests that pass with such a log show that no subscriber depends on an object that it shares with the
writer. Some test cases always use one; all do if `HOMESERVER_TEST_TRANSCODING` is set.
"""

import os
from collections.abc import Callable
from typing import Any

from homeserver.wiring.entry_kinds import entry_codec

FOR_ALL_TESTS = bool(os.environ.get("HOMESERVER_TEST_TRANSCODING"))


def transcoding(*, is_wanted: bool) -> Callable[[Any], Any] | None:
    """The `transcode` of a test's log, if the test wants one or all tests have it."""
    return entry_codec().transcode if is_wanted or FOR_ALL_TESTS else None
