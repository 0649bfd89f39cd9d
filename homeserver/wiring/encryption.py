"""End-to-end encryption: key backups, and their part of the client API."""

from typing import Any

from homeserver.client_api.encryption.key_backup import KeyBackupApi
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.encryption.backed_up_keys import BackedUpKeys
from homeserver.encryption.key_backups import KeyBackups
from homeserver.encryption.key_set_deletion import KeySetDeletion
from homeserver.storage.database.database import Database
from homeserver.web.routes import Route


class Encryption:
    """The objects of end-to-end encryption, and the APIs of the area."""

    def __init__(self, reactor: Any, db: Database) -> None:
        writing: KeyedLocks[str] = KeyedLocks()
        self._key_set_deletion = KeySetDeletion(db, reactor)
        self.key_backups = KeyBackups(db, writing, self._key_set_deletion)
        self._backed_up_keys = BackedUpKeys(
            db, reactor, self.key_backups, writing, self._key_set_deletion
        )

    def start(self) -> None:
        """Start background work."""
        self._key_set_deletion.start()

    async def stop(self) -> None:
        """Stop background work."""
        await self._key_set_deletion.stop()

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return KeyBackupApi(self.key_backups, self._backed_up_keys).routes()
