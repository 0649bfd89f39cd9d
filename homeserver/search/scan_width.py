"""How many blocks of the index one statement looks at: as many as it can in time.

Nearly always that is all of them. On a server with so many blocks that it takes too long, or with a
slow disk, a search goes through them in parts.
"""

from homeserver.protocol.errors import Unavailable

MAX_BLOCKS = 1_000_000  # beyond that all are looked at
FIRST_BLOCKS = 100_000  # once all were too many
MIN_BLOCKS = 500
SHRINK = 8
GROWTH = 8


class ScanWidth:
    """Learns from the statements of all searches."""

    def __init__(self) -> None:
        self.blocks: int | None = None  # `None` for all

    def was_too_much(self) -> None:
        """A statement did not end in time. Raises `Unavailable` if it could not have less."""
        if self.blocks == MIN_BLOCKS:
            raise Unavailable("The database is too busy for searches; try again in a moment")
        less = FIRST_BLOCKS if self.blocks is None else self.blocks // SHRINK
        self.blocks = max(less, MIN_BLOCKS)

    def was_in_time(self) -> None:
        """All statements of a search ended in time: the next one may look at some more."""
        if self.blocks is not None:
            more = self.blocks + self.blocks // GROWTH
            self.blocks = more if more <= MAX_BLOCKS else None
