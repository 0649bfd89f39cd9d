"""Reading from memory what can be read from memory, and saying what has to be loaded first.

Unread counts are asked for with every delivery, so they are worked out without waiting. Where
something is not at hand, the attempt ends with `PushDataNotInMemory`; whoever can wait loads it and
tries again, all the others leave it.
"""

from collections.abc import Awaitable, Callable


class PushDataNotInMemory(LookupError):
    """Something has to be loaded first, by `await missing.load()`."""

    def __init__(self, load: Callable[[], Awaitable[None]]) -> None:
        super().__init__("not in memory")
        self.load = load
