"""Versions of key backups: made, replaced and deleted, also when the server dies in between."""

from homeserver.encryption import key_backups, key_set_deletion
from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.database import Connection
from homeserver.storage.encryption.backed_up_keys import Place, delete_slice
from tests.encryption.support import ALGORITHM, ALICE, BOB, KeyBackupsTestCase, key


class KeyBackupsTests(KeyBackupsTestCase):
    async def test_the_newest_backup_is_the_current_one(self) -> None:
        """All devices of a user find the same backup."""
        await self.refused(self.backups.current(ALICE), "M_NOT_FOUND", 404)

        versions = [await self.create() for _ in range(12)]

        self.assertEqual(len(set(versions)), 12)
        self.assertEqual(str((await self.backups.current(ALICE)).version), versions[-1])
        await self.refused(self.backups.current(BOB), "M_NOT_FOUND", 404)

    async def test_versions_are_never_used_again(self) -> None:
        """A device that was offline does not take a new backup for the one that it knows."""
        first, second = await self.create(), await self.create()
        await self.backups.delete(ALICE, second)
        await self.backups.delete(ALICE, first)

        third = await self.create()

        self.assertNotIn(third, (first, second))

    async def test_without_the_newest_backup_the_one_before_is_current(self) -> None:
        """A user who deletes a backup made by mistake still has the former one."""
        first, second = await self.create(), await self.create()

        await self.backups.delete(ALICE, second)

        self.assertEqual(str((await self.backups.current(ALICE)).version), first)

    async def test_deleting_a_deleted_backup_succeeds(self) -> None:
        """A client that repeats the request is not shown an error; for a wrong version it is."""
        version = await self.create()
        await self.backups.delete(ALICE, version)

        await self.backups.delete(ALICE, version)

        await self.refused(self.backups.get(ALICE, version), "M_NOT_FOUND", 404)
        for unknown in ("2", "0", "-1", "01", "x", "", "9" * 30, "²"):
            await self.refused(self.backups.delete(ALICE, unknown), "M_NOT_FOUND", 404)
            await self.refused(self.backups.get(ALICE, unknown), "M_NOT_FOUND", 404)
        await self.refused(self.backups.delete(BOB, version), "M_NOT_FOUND", 404)

    async def test_auth_data_keep_their_bytes(self) -> None:
        """They are signed; whatever else is in them belongs to the client."""
        auth_data = b'{"public_key" : "a\\u0000b", "z":1.0, "signatures":{}}'
        version = await self.backups.create(ALICE, ALGORITHM, auth_data)

        self.assertEqual((await self.backups.get(ALICE, version)).auth_data, auth_data)
        await self.backups.update(ALICE, version, ALGORITHM, b'{"a": [ ]}')
        self.assertEqual((await self.backups.get(ALICE, version)).auth_data, b'{"a": [ ]}')

    async def test_only_auth_data_can_be_updated(self) -> None:
        """A client with another idea of the algorithm would encrypt keys that nobody can read."""
        version = await self.create()

        await self.refused(
            self.backups.update(ALICE, version, "org.example", b"{}"), "M_INVALID_PARAM", 400
        )

        await self.refused(self.backups.update(ALICE, "7", ALGORITHM, b"{}"), "M_NOT_FOUND", 404)

    async def test_backups_are_bounded(self) -> None:
        """A user cannot fill the disk with backups; after a deletion there is room again."""
        self.patch(key_backups, "MAX_VERSIONS", 2)
        first = await self.create()
        await self.create()

        await self.refused(self.create(), "M_USER_LIMIT_EXCEEDED", 403)
        await self.create(BOB)
        await self.backups.delete(ALICE, first)
        await self.create()

        large = b'{"a":"%s"}' % (b"x" * 65_536)
        await self.refused(self.backups.create(BOB, ALGORITHM, large), "M_TOO_LARGE", 413)
        await self.refused(self.backups.create(BOB, "x" * 256, b"{}"), "M_INVALID_PARAM", 400)

    async def test_the_keys_of_a_deleted_backup_leave_the_database(self) -> None:
        """The user wants them gone, not hidden; many of them are deleted in slices."""
        self.patch(key_set_deletion, "SLICE_KEYS", 3)
        kept, deleted = await self.create(), await self.create()
        await self.upload(deleted, **{f"s{number}": key() for number in range(10)})

        await self.backups.delete(ALICE, deleted)

        self.assertEqual(self.query("SELECT count(*) FROM backed_up_keys"), [(0,)])
        self.assertEqual(self.query("SELECT count(*) FROM deleted_key_sets"), [(0,)])
        await self.upload(kept, s=key())

    async def test_a_deletion_is_finished_after_a_crash(self) -> None:
        """The backup is gone for clients at once, and its keys are after the next start."""
        self.patch(key_set_deletion, "SLICE_KEYS", 3)
        version = await self.create()
        await self.upload(version, **{f"s{number}": key() for number in range(10)})
        slices = []

        async def failing(db: Connection, key_set: int, after: Place, most: int) -> Place | None:
            slices.append(after)
            if len(slices) == 2:
                raise Unavailable("The database has gone")
            return await delete_slice(db, key_set, after, most)

        self.patch(key_set_deletion, "delete_slice", failing)
        await self.refused(self.backups.delete(ALICE, version), "M_UNKNOWN", 503)
        await self.refused(self.backups.get(ALICE, version), "M_NOT_FOUND", 404)
        self.assertEqual(self.query("SELECT count(*) FROM backed_up_keys"), [(7,)])

        self.build()
        await self.deletion.finish_all()

        self.assertEqual(self.query("SELECT count(*) FROM backed_up_keys"), [(0,)])
        self.assertEqual(self.query("SELECT count(*) FROM deleted_key_sets"), [(0,)])

    async def test_a_deactivated_user_has_no_backups(self) -> None:
        """No device can use them any more; those of others stay."""
        for user_id in (ALICE, ALICE, BOB):
            await self.upload(await self.create(user_id), user_id=user_id, s=key())

        await self.backups.deactivated(ALICE, False)
        await self.backups.deactivated(ALICE, False)

        await self.refused(self.backups.current(ALICE), "M_NOT_FOUND", 404)
        self.assertEqual(self.query("SELECT user_id, key_count FROM key_backups"), [(BOB, 1)])
        self.assertEqual(self.query("SELECT count(*) FROM backed_up_keys"), [(1,)])
        self.assertEqual(self.query("SELECT user_id FROM key_backup_users"), [(BOB,)])
