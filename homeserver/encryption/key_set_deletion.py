"""The deletion of backed up keys that belong to no backup any more.

A backup may have a million keys. One transaction that deletes them would take seconds, delay the
clean-up of all tables, and be lost as a whole with a crash. So a backup parts with its whole key
set in one short transaction, after which no request reads the keys; their rows are then deleted in
slices. The request waits for that: when it is answered, the rows are gone, unless the server is
stopping. What a stop, a crash or a failure of the database left is deleted by the server later.
"""

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.backed_up_keys import FIRST, Place, delete_slice
from homeserver.storage.encryption.key_backups import deleted_key_sets, forget_key_set

FINISH_SECONDS = 600.0  # between two searches for unfinished deletions
SLICE_KEYS = 2_000  # keys of one transaction: some tens of milliseconds


class KeySetDeletion:
    """Deletes the rows of deleted key sets. `stop` it before the database closes."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._in_progress: set[int] = set()
        self._is_stopping = False
        self._finishing = PeriodicTask(
            clock, FINISH_SECONDS, self.finish_all, name="the deletion of backed up keys"
        )

    def start(self) -> None:
        """Begin with what was unfinished at the last stop, and look for more every ten minutes."""
        self._finishing.start(now=True)

    async def stop(self) -> None:
        """Begin no further slice; the next start goes on."""
        self._is_stopping = True
        await self._finishing.stop()

    async def finish_all(self) -> None:
        """Delete the rows of all deleted key sets."""
        for key_set in await self._db.run(deleted_key_sets):
            await self.delete(key_set)

    async def delete(self, key_set: int) -> None:
        """Delete the rows of a key set, which was recorded as deleted."""
        if key_set in self._in_progress:
            return
        self._in_progress.add(key_set)
        try:
            place: Place | None = FIRST
            while place is not None:
                if self._is_stopping:
                    return
                place = await self._db.run(delete_slice, key_set, place, SLICE_KEYS)
            await self._db.run(forget_key_set, key_set)
        finally:
            self._in_progress.discard(key_set)
