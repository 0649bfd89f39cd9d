"""How far the log has been published here, in each shard."""

from typing import Protocol

from homeserver.streams.sync_tokens import PublishedPositions, SyncToken


class Seen(Protocol):
    """The published part of all shards as it grows. Readers take a snapshot and end there."""

    @property
    def highest(self) -> int:
        """The highest position of any shard: nothing above it is published."""

    def snapshot(self) -> PublishedPositions:
        """The positions of this moment."""


class Positioned(Protocol):
    """The part of the log that is used here."""

    position: int


class SeenOfOneOwner:
    """All shards are written by one log, so its position is that of each."""

    def __init__(self, log: Positioned) -> None:
        self._log = log
        self._last = SyncToken(log.position)

    @property
    def highest(self) -> int:
        return self._log.position

    def snapshot(self) -> PublishedPositions:
        if self._last.base != self._log.position:
            self._last = SyncToken(self._log.position)
        return self._last
