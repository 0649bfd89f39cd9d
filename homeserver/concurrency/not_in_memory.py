"""Reading from memory what can be read from memory, and saying what has to be loaded first.

Some code must not wait: nothing may happen between what it reads and what it writes, or it is asked
for with every answer. Where something is not in memory, its attempt ends with `NotInMemory`. A
caller that can wait loads what is missing and makes the attempt again; the others leave it.
"""

from collections.abc import Awaitable, Callable


class NotInMemory(LookupError):
    """Something has to be loaded first, by `await missing.load()`."""

    def __init__(
        self, load: Callable[[], Awaitable[object]], message: str = "not in memory"
    ) -> None:
        super().__init__(message)
        self.load = load
