"""What is deleted, and when: cached files, unused addresses, orphans, and thumbnails."""

import hashlib
from typing import Any, ClassVar

from twisted.internet import reactor

from homeserver.concurrency.clock import wall_seconds
from homeserver.protocol.media.media_ids import MediaId
from homeserver.storage.media.media import (
    NewMedia,
    add_media,
    delete_media,
    end_quarantine,
    quarantine_media,
    remote_usage,
    usage_of,
)
from tests.media.media_client import CREATE, THUMBNAIL, MediaTestCase, path_of
from tests.media.pictures import encode, halves

DAY_MS = 86_400_000


class CacheTestCase(MediaTestCase):
    settings: ClassVar = {"media": {"remote_days": 30, "remote_cache_size": 2_500}}

    async def cache(self, media_id: str, content: bytes, days_ago: float) -> str:
        """A file of another server that was last used some days ago; its path."""
        media = self.server.parts.media
        incoming = await media.store.begin()
        await incoming.write([content])
        sha256 = await incoming.close()
        name = MediaId("elsewhere.org", media_id)
        used_at = int(wall_seconds(reactor) * 1000 - days_ago * DAY_MS)
        new = NewMedia(name, None, used_at, sha256, len(content), "image/png", None, False)
        await media.store.keep(incoming, sha256, lambda: self.query(add_media, new))
        await incoming.discard()
        return f"elsewhere.org/{media_id}"

    async def query(self, function: Any, *arguments: Any, **more: Any) -> Any:
        """The result of a function of `storage`."""
        return await self.server.parts.db.run(function, *arguments, **more)

    async def clean_up(self) -> None:
        """What the server does every hour."""
        await self.server.parts.media.retention.clean_up()

    async def statuses(self, *files: str) -> list[int]:
        """The responses to downloads; no other server can be asked."""
        return [(await self.download(file)).status for file in files]

    async def clean_up_orphans(self) -> None:
        """What the server does every day."""
        await self.server.parts.media.store.release_orphans(lambda: True)


class RetentionTests(CacheTestCase):
    async def test_unused_files_of_other_servers_go(self) -> None:
        """The cache holds what users look at."""
        old = await self.cache("old", b"old", 31)
        new = await self.cache("new", b"new", 29)

        await self.clean_up()

        self.assertEqual(await self.statuses(old, new), [404, 200])
        self.assertEqual(len(self.stored_files()), 1)

    async def test_a_use_keeps_a_file(self) -> None:
        """A picture that is looked at every day is not fetched every month."""
        file = await self.cache("old", b"old", 31)
        await self.download(file)

        await self.clean_up()

        self.assertEqual(await self.statuses(file), [200])

    async def test_the_cache_is_bounded(self) -> None:
        """Other servers cannot fill the disk: the least recently used files go."""
        files = [
            await self.cache(f"file{n}", bytes([n]) * 1_000, days_ago=20 - n) for n in range(15)
        ]

        await self.clean_up()

        usage = await self.query(remote_usage)
        self.assertLessEqual(usage.bytes, 2_500)
        self.assertEqual(await self.statuses(files[0], files[-1]), [404, 200])

    async def test_local_files_stay(self) -> None:
        """They cannot be fetched again."""
        file = await self.upload(b"x" * 5_000)
        await self.query(set_used_at, 1)

        await self.clean_up()

        self.assertEqual(await self.statuses(file), [200])

    async def test_content_goes_with_the_last_file_that_has_it(self) -> None:
        """The cache does not delete what a local user has uploaded, too."""
        remote = await self.cache("same", b"the same", 31)
        local = await self.upload(b"the same")

        await self.clean_up()

        self.assertEqual(await self.statuses(remote, local), [404, 200])
        await self.query(delete_media, MediaId("example.org", local.split("/")[1]))
        await self.clean_up_orphans()
        self.assertEqual(self.stored_files(), [])

    async def test_thumbnails_go_with_the_picture(self) -> None:
        """Of a deleted picture nothing is left."""
        file = await self.upload(encode(halves(1_000, 500), "JPEG"), "image/jpeg")
        small = await self.upload(encode(halves(10, 10)), "image/png")
        for each in (file, small):
            await self.send("GET", f"{THUMBNAIL}/{each}", by=self.alice, width=320, height=240)
        self.assertEqual(len(self.stored_files()), 3)

        for each in (file, small):
            await self.query(delete_media, MediaId("example.org", each.split("/")[1]))
        await self.clean_up_orphans()

        self.assertEqual(self.stored_files(), [])
        self.assertEqual(await self.query(count_thumbnails), 0)

    async def test_what_a_crash_left_is_found(self) -> None:
        """A content that was stored before its row was written does not stay."""
        content = b"no row"
        digits = hashlib.sha256(content).hexdigest()
        other = f"content/{digits[:2]}/README"
        self.restore(f"content/{digits[:2]}/{digits[2:]}", content)
        self.restore(other, b"of somebody else")

        await self.clean_up_orphans()

        self.assertEqual(self.stored_files(), [other])

    async def test_expired_addresses_go(self) -> None:
        """They would stay in the database otherwise."""
        got = await self.send("POST", CREATE, b"", by=self.alice)
        await self.query(expire_all)

        await self.clean_up()

        self.assertEqual(await self.query(count_media), 0)
        self.assertEqual(await self.statuses(path_of(got.json["content_uri"])), [404])

    async def test_deleted_files_do_not_count(self) -> None:
        """A user whose files were deleted can upload again."""
        file = await self.upload(b"x" * 5_000)
        await self.upload(b"y" * 100)

        await self.query(delete_media, MediaId("example.org", file.split("/")[1]))

        usage = await self.query(usage_of, self.alice.user_id)
        self.assertEqual((usage.files, usage.bytes), (1, 100))


class QuarantineTests(CacheTestCase):
    async def test_a_quarantined_content_is_not_served(self) -> None:
        """Under no address, nor as a thumbnail, nor if it is uploaded again."""
        content = encode(halves(1_000, 500), "JPEG")
        first = await self.upload(content, "image/jpeg")
        second = await self.upload(content, "image/jpeg")
        name = MediaId("example.org", first.split("/")[1])

        done = await self.query(quarantine_media, name, 1, may_be_unknown=False)
        third = await self.upload(content, "image/jpeg")

        self.assertTrue(done)
        self.assertEqual(await self.statuses(first, second, third), [404, 404, 404])
        small = await self.send("GET", f"{THUMBNAIL}/{second}", by=self.alice, width=32, height=32)
        self.assertEqual(small.status, 404)
        await self.query(end_quarantine, name)
        self.assertEqual(await self.statuses(first, second, third), [200, 200, 200])

    async def test_a_quarantined_file_of_another_server_is_not_fetched(self) -> None:
        """Whether it was cached or not, and it stays known."""
        cached = await self.cache("cached", b"cached", 100)
        for media_id in ("cached", "unknown"):
            name = MediaId("elsewhere.org", media_id)
            await self.query(quarantine_media, name, 1, may_be_unknown=True)

        await self.clean_up()

        self.assertEqual(await self.statuses(cached, "elsewhere.org/unknown"), [404, 404])
        self.assertEqual(await self.query(count_media), 2)

    async def test_there_is_no_such_file(self) -> None:
        """A mistyped address is noticed."""
        name = MediaId("example.org", "unknown")

        self.assertFalse(await self.query(quarantine_media, name, 1, may_be_unknown=False))
        self.assertFalse(await self.query(end_quarantine, name))


async def set_used_at(db: Any, used_at: int) -> None:
    await db.execute("UPDATE media SET used_at = %s", (used_at,))


async def expire_all(db: Any) -> None:
    await db.execute("UPDATE media SET expires_at = 1 WHERE expires_at IS NOT NULL")


async def count_media(db: Any) -> int:
    return int((await (await db.execute("SELECT count(*) FROM media")).fetchone())[0])


async def count_thumbnails(db: Any) -> int:
    return int((await (await db.execute("SELECT count(*) FROM thumbnails")).fetchone())[0])
