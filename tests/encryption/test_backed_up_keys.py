"""Keys in a backup: replacement, etag, counts, bounds, and uploads at the same time."""

from collections.abc import AsyncGenerator
from typing import Any

from twisted.internet import defer, reactor
from twisted.internet.task import deferLater

from homeserver.encryption import backed_up_keys
from homeserver.encryption.backed_up_keys import KeyCount
from homeserver.storage.encryption.backed_up_keys import BackedUpKey, metadata_of_keys
from tests.encryption.support import (
    ALICE,
    BOB,
    OTHER_ROOM,
    ROOM,
    KeyBackupsTestCase,
    key,
)

WAITS_FOR_LOCK = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


class UploadTests(KeyBackupsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.version = await self.create()

    async def test_the_better_key_is_kept(self) -> None:
        """Each rule of the specification, in both orders, in the order in which they apply."""
        worse = key(verified=False, index=5, forwarded=5, data=b'{"n":0}')
        steps = [
            key(verified=False, index=5, forwarded=4, data=b'{"n":1}'),
            key(verified=False, index=4, forwarded=9, data=b'{"n":2}'),
            key(verified=True, index=9, forwarded=9, data=b'{"n":3}'),
        ]
        await self.upload(self.version, s=worse)

        for better in steps:
            before = await self.upload(self.version, s=worse)
            after = await self.upload(self.version, s=better)
            again = await self.upload(self.version, s=worse)

            found = await self.keys.find(ALICE, self.version, ROOM, "s")
            self.assertEqual(found.session_data, bytes(better.session_data))
            self.assertNotEqual(before.etag, after.etag)
            self.assertEqual(after, again)
            worse = better
        await self.assert_counts_agree(self.version)

    async def test_the_etag_changes_with_the_keys_only(self) -> None:
        """A client compares it to see whether another one has changed the backup."""
        first = await self.upload(self.version, a=key(), b=key())

        self.assertEqual(await self.upload(self.version, a=key(), b=key()), first)
        self.assertEqual(await self.keys.upload(ALICE, self.version, {}), first)
        self.assertEqual(await self.keys.delete(ALICE, self.version, OTHER_ROOM), first)
        self.assertEqual(await self.keys.delete(ALICE, self.version, ROOM, "c"), first)
        await self.backups.update(
            ALICE, self.version, (await self.backups.current(ALICE)).algorithm, b'{"a":1}'
        )
        backup = await self.backups.current(ALICE)
        self.assertEqual(KeyCount(str(backup.etag), backup.key_count), first)
        second = await self.upload(self.version, a=key(), c=key())
        self.assertEqual((first.count, second.count), (2, 3))
        self.assertNotEqual(first.etag, second.etag)

    async def test_keys_are_written_to_the_current_backup_only(self) -> None:
        """A device that has missed a new backup learns its version, and loses no key in it."""
        second = await self.create()

        error = await self.refused(
            self.upload(self.version, s=key()), "M_WRONG_ROOM_KEYS_VERSION", 403
        )

        self.assertEqual(error.body()["current_version"], second)
        for unknown in ("3", "x", ""):
            await self.refused(self.upload(unknown, s=key()), "M_WRONG_ROOM_KEYS_VERSION", 403)
        await self.refused(self.upload("1", user_id=BOB, s=key()), "M_NOT_FOUND", 404)

    async def test_two_devices_that_upload_at_once_lose_nothing(self) -> None:
        """Also where they are served by two processes, without a common lock in memory."""
        sessions = [f"s{number}" for number in range(40)]
        uploads = []
        for better in (0, 1):
            # Each device has the better key of every other session.
            for number, session in enumerate(sessions):
                one = key(index=0 if number % 2 == better else 1)
                uploads.append(defer.ensureDeferred(self.upload(self.version, **{session: one})))
            self.build()

        counts: Any = await defer.gatherResults(uploads)

        found = {
            key.session_id: key.first_message_index
            async for page in self.keys.pages(ALICE, self.version)
            for key in page
        }
        self.assertEqual(found, dict.fromkeys(sessions, 0))
        self.assertEqual(max(count.count for count in counts), 40)
        await self.assert_counts_agree(self.version)

    async def test_no_key_is_added_to_keys_that_are_being_deleted(self) -> None:
        """An upload that was accepted is in the backup, or was deleted after it."""
        for delete in (
            lambda: self.keys.delete(ALICE, self.version),
            lambda: self.backups.delete(ALICE, self.version),
        ):
            await self.upload(self.version, a=key())
            device = self.keys
            self.build()
            deletions: list[Any] = []

            async def with_deletion(
                *args: Any, delete: Any = delete, under_way: Any = deletions
            ) -> Any:
                """Let the other process begin a deletion in the middle of the upload."""
                under_way.append(defer.ensureDeferred(delete()))
                while not under_way[0].called and not self.query(WAITS_FOR_LOCK):
                    await deferLater(reactor, 0.01)
                return await metadata_of_keys(*args)

            self.patch(backed_up_keys, "metadata_of_keys", with_deletion)
            await device.upload(ALICE, self.version, {ROOM: {"b": key()}})
            await deletions[0]
            self.patch(backed_up_keys, "metadata_of_keys", metadata_of_keys)

            self.assertEqual(self.query("SELECT count(*) FROM backed_up_keys"), [(0,)])
            self.assertEqual(self.query("SELECT sum(key_count) FROM key_backups")[0][0] or 0, 0)

    async def test_a_new_backup_during_uploads_takes_no_key_of_the_old_one(self) -> None:
        """Each upload is in the old backup, or is refused and repeated for the new one."""
        uploads = [
            defer.ensureDeferred(self.upload(self.version, **{f"s{number}": key()}))
            for number in range(20)
        ]
        self.build()
        creation = defer.ensureDeferred(self.create())

        outcomes: Any = await defer.DeferredList(uploads, consumeErrors=True)
        await creation

        stored = await self.sessions(self.version)
        self.assertEqual(len(stored), sum(succeeded for succeeded, _ in outcomes))
        self.assertEqual(await self.sessions("2"), [])
        await self.assert_counts_agree(self.version)

    async def test_one_bad_key_stores_none(self) -> None:
        """The client learns that its request was wrong, and which state the backup has."""
        for bad in (
            {"!" + "x" * 255: {"s": key()}},
            {"room": {"s": key()}},
            {ROOM: {"": key()}},
            {ROOM: {"s" * 256: key()}},
        ):
            keys = {OTHER_ROOM: {"s": key()}, **bad}
            await self.refused(self.keys.upload(ALICE, self.version, keys), "M_BAD_JSON", 400)
        large = key(data=b'{"a":"%s"}' % (b"x" * 65_536))
        await self.refused(self.upload(self.version, a=key(), b=large), "M_TOO_LARGE", 413)

        self.assertEqual(await self.sessions(self.version), [])

    async def test_keys_are_bounded_in_number_and_bytes(self) -> None:
        """A user cannot fill the disk; better keys still replace others, deleting makes room."""
        self.patch(backed_up_keys, "MAX_KEYS", 3)
        await self.upload(self.version, a=key(index=1), b=key(), c=key())
        await self.refused(self.upload(self.version, d=key()), "M_USER_LIMIT_EXCEEDED", 403)
        await self.upload(self.version, a=key(index=0))
        await self.keys.delete(ALICE, self.version, ROOM, "c")
        await self.upload(self.version, d=key())

        self.patch(backed_up_keys, "MAX_BYTES", 200)
        second = await self.create()
        some = key(data=b'{"a":"%s"}' % (b"x" * 150))
        await self.refused(self.upload(second, a=some), "M_USER_LIMIT_EXCEEDED", 403)
        await self.backups.delete(ALICE, self.version)
        await self.upload(second, a=some)
        await self.assert_counts_agree(second)


class ReadingTests(KeyBackupsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.version = await self.create()

    async def test_many_keys_are_read_page_by_page(self) -> None:
        """Neither many small keys nor some large ones are in memory at the same time."""
        self.patch(backed_up_keys, "KEYS_A_STATEMENT", 7)
        self.patch(backed_up_keys, "PAGE_KEYS", 10)
        self.patch(backed_up_keys, "PAGE_BYTES", 600)
        rooms = {ROOM: range(25), OTHER_ROOM: range(12)}
        for room_id, numbers in rooms.items():
            large = b'{"a":"%s"}' % (b"x" * 250)
            keys = {f"s{number:02}": key(data=large if number < 9 else b"{}") for number in numbers}
            await self.upload(self.version, room_id, **keys)

        pages = [page async for page in self.keys.pages(ALICE, self.version)]

        places = [key.place for page in pages for key in page]
        self.assertEqual(
            places, sorted((room, f"s{number:02}") for room in rooms for number in rooms[room])
        )
        self.assertLessEqual(max(map(len, pages)), 10)
        # The bound may be exceeded by the last key of a page.
        self.assertLess(max(sum(key.size for key in page) for page in pages), 600 + 300)
        of_room = await self.sessions(self.version, ROOM)
        self.assertEqual(of_room, [place for place in places if place[0] == ROOM])
        await self.assert_counts_agree(self.version)

    async def test_a_backup_that_is_emptied_while_it_is_read_is_not_taken_for_whole(self) -> None:
        """A client that restores its keys must not believe that it has all of them."""
        self.patch(backed_up_keys, "PAGE_KEYS", 1)
        for delete in (
            lambda: self.keys.delete(ALICE, self.version),
            lambda: self.backups.delete(ALICE, self.version),
        ):
            await self.upload(self.version, a=key(), b=key())
            pages = self.keys.pages(ALICE, self.version)
            await anext(pages)

            await delete()

            await self.refused(_rest(pages), "M_NOT_FOUND", 404)

    async def test_what_does_not_exist_is_not_found(self) -> None:
        """An unknown key or backup is an error, a room without keys is none."""
        await self.upload(self.version, s=key())

        for version, room, session in (
            (self.version, ROOM, "t"),
            (self.version, OTHER_ROOM, "s"),
            ("2", ROOM, "s"),
        ):
            await self.refused(self.keys.find(ALICE, version, room, session), "M_NOT_FOUND", 404)
        await self.refused(self.keys.find(BOB, self.version, ROOM, "s"), "M_NOT_FOUND", 404)
        self.assertEqual(await self.sessions(self.version, OTHER_ROOM), [])
        await self.refused(_rest(self.keys.pages(ALICE, "2")), "M_NOT_FOUND", 404)
        await self.refused(self.keys.delete(ALICE, "2"), "M_NOT_FOUND", 404)
        await self.refused(self.keys.delete(ALICE, "2", ROOM), "M_NOT_FOUND", 404)

    async def test_keys_are_deleted_one_by_one_by_room_or_all(self) -> None:
        """Only the named ones; number and etag follow."""
        etags = set()
        await self.upload(self.version, a=key(), b=key())
        await self.upload(self.version, OTHER_ROOM, a=key(), c=key())

        for place, left in (((ROOM, "a"), 3), ((OTHER_ROOM,), 1), ((), 0)):
            count = await self.keys.delete(ALICE, self.version, *place)
            etags.add(count.etag)
            self.assertEqual((count.count, len(await self.sessions(self.version))), (left, left))
            await self.assert_counts_agree(self.version)

        self.assertEqual(len(etags), 3)
        self.assertEqual(self.query("SELECT count(*) FROM backed_up_keys"), [(0,)])
        self.assertEqual((await self.upload(self.version, a=key())).count, 1)


async def _rest(pages: AsyncGenerator[list[BackedUpKey], None]) -> None:
    async for _ in pages:
        pass
