"""The deletion of what was sent from the table of an outbox.

It is written with other changes in the next commit of the log, and no transaction waits for it: if
it is lost, the EDUs are sent again. Only the next reading for the same destination waits.
"""

from collections.abc import Sequence

from federation.sending.edu_outbox import OutboxItem
from federation.sending.sender import SendingRecorded
from homeserver.storage.database.batch import BatchStatement
from homeserver.streams.log import Log


class OutboxDeletions:
    """The deletions of one outbox. `statement` deletes a row by its destination and position."""

    def __init__(self, log: Log, statement: BatchStatement) -> None:
        self._log = log
        self._statement = statement
        self._unwritten: dict[str, int] = {}  # the last deletion that is not durable, by server

    def delete(self, destination: str, items: Sequence[OutboxItem]) -> None:
        """Delete items that a destination has."""
        position = self._log.next_position()
        rows = [self._statement.row(destination, item.position) for item in items]
        self._unwritten[destination] = position
        written = self._log.append(SendingRecorded(position), rows)
        written.addBoth(lambda _: self._ended(destination, position))

    async def written(self, destination: str) -> None:
        """Wait until the deletions for a destination are durable."""
        if destination in self._unwritten:
            await self._log.written()

    def _ended(self, destination: str, position: int) -> None:
        if self._unwritten.get(destination) == position:
            del self._unwritten[destination]
