"""The objects of key backups on a fresh database, and a vocabulary to talk about them."""

from typing import Any

import msgspec
import psycopg
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock

from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.encryption.backed_up_keys import BackedUpKeys, KeyCount
from homeserver.encryption.key_backups import KeyBackups
from homeserver.encryption.key_set_deletion import KeySetDeletion
from homeserver.protocol.encryption.key_backup_rules import KeyBackupData
from homeserver.protocol.errors import MatrixError
from tests.support.postgres import DatabaseTestCase

ALICE = "@alice:example.org"
BOB = "@bob:example.org"
ROOM, OTHER_ROOM = "!room:example.org", "!other:example.org"
ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"


def key(
    *, index: int = 0, forwarded: int = 0, verified: bool = True, data: bytes = b"{}"
) -> KeyBackupData:
    """A key for some session."""
    return KeyBackupData(index, forwarded, verified, msgspec.Raw(data))


class KeyBackupsTestCase(DatabaseTestCase):
    """A test with key backups, made again by `build` as at a start of the server."""

    async def setUp(self) -> None:
        await super().setUp()
        self.build()

    def build(self) -> None:
        """Make all objects; those of another process, if some exist already."""
        writing: KeyedLocks[str] = KeyedLocks()
        clock: Any = reactor
        self.deletion = KeySetDeletion(self.db, Clock())
        self.backups = KeyBackups(self.db, writing, self.deletion)
        self.keys = BackedUpKeys(self.db, clock, self.backups, writing, self.deletion)

    async def create(self, user_id: str = ALICE) -> str:
        """A new backup; gives its version."""
        return await self.backups.create(user_id, ALGORITHM, b"{}")

    async def upload(
        self, version: str, room_id: str = ROOM, user_id: str = ALICE, **keys: KeyBackupData
    ) -> KeyCount:
        """Upload keys of one room, by their session ids."""
        return await self.keys.upload(user_id, version, {room_id: keys})

    async def sessions(self, version: str, room_id: str | None = None) -> list[tuple[str, str]]:
        """The rooms and sessions of all keys, in the order in which they are read."""
        pages = self.keys.pages(ALICE, version, room_id)
        return [key.place async for page in pages for key in page]

    async def assert_counts_agree(self, version: str) -> None:
        """The number of keys and bytes of a backup are those of its keys."""
        backup = await self.backups.get(ALICE, version)
        [recorded] = self.query(
            "SELECT key_count, bytes FROM key_backups WHERE version = %s", version
        )
        [found] = self.query(
            "SELECT count(*), coalesce(sum(octet_length(room_id) + octet_length(session_id)"
            " + octet_length(session_data)), 0) FROM backed_up_keys WHERE key_set = %s",
            backup.key_set,
        )
        self.assertEqual(recorded, found)

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows, as another program sees them."""
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    async def refused(self, attempt: Any, errcode: str, status: int) -> MatrixError:
        """The error that something is refused with."""
        error: MatrixError = await self.assertFailure(ensureDeferred(attempt), MatrixError)
        self.assertEqual((error.errcode, error.status), (errcode, status))
        return error
