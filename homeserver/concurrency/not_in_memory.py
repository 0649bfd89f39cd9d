"""Computations on data in memory, which report the data that has to be loaded first.

Some code must not wait: nothing may happen between its read and its write, or it runs for every
delivered event. If data is not in memory, the attempt ends with `NotInMemory`; a caller that can
wait loads it and tries again, any other continues without it.
"""

from collections.abc import Awaitable, Callable


class NotInMemory(LookupError):
    """Data has to be loaded first, by `await missing.load()`."""

    def __init__(
        self, load: Callable[[], Awaitable[object]], message: str = "not in memory"
    ) -> None:
        super().__init__(message)
        self.load = load
