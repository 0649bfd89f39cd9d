"""Stored URL previews: which one is shown, and how long they and their pictures are kept."""

from hashlib import sha256
from typing import Any, ClassVar

from twisted.internet import reactor

from homeserver.concurrency.clock import now_ms
from homeserver.protocol.media.media_ids import MediaId
from homeserver.storage.media.media import NewMedia, add_media, delete_media, find_media
from homeserver.storage.media.url_previews import StoredPreview, add_preview, count_previews
from tests.media.pictures import encode, halves
from tests.media.web_pages import Page, PreviewTestCase, og, page, titled

PICTURE = encode(halves(120, 80))
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class StoredTestCase(PreviewTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "url_previews": {"enabled": True, "ports": [], "keep_days": 3, "max_previews": 100},
        "outbound_http": {"allow_private_addresses": True},
    }

    async def setUp(self) -> None:
        await super().setUp()
        self.now = now_ms(reactor)  # type: ignore[arg-type]

    async def store(
        self, path: str, title: str, ago: int, lifetime: int = HOUR_MS, image: bytes = b""
    ) -> str | None:
        """A preview that was fetched some time (ms) ago; the media ID of its picture."""
        at = self.now - ago
        media_id = await self.store_file(f"of{path[1:]}", image, at) if image else None
        preview = StoredPreview(at, at + lifetime, f'{{"og:title":"{title}"}}'.encode(), media_id)
        key = sha256((self.site + path).encode()).digest()
        await self.query(add_preview, key, preview)
        return media_id

    async def store_file(self, media_id: str, content: bytes, at: int) -> str:
        """A picture of this server without an uploader; its media ID."""
        store = self.server.parts.media.store
        incoming = await store.begin()
        await incoming.write([content])
        digest = await incoming.close()
        name = MediaId("example.org", media_id)
        new = NewMedia(name, None, at, digest, len(content), "image/png", None, False)
        await store.keep(incoming, digest, lambda: self.query(add_media, new))
        return media_id

    async def query(self, function: Any, *arguments: Any) -> Any:
        """The result of a function of `storage`."""
        return await self.server.parts.db.run(function, *arguments)

    async def has_file(self, media_id: str) -> bool:
        """Whether there is such a file."""
        return await self.query(find_media, MediaId("example.org", media_id)) is not None

    async def clean_up(self) -> None:
        """What the server does every hour."""
        await self.server.parts.media.retention.clean_up()


class TimeTests(StoredTestCase):
    async def test_a_preview_expires(self) -> None:
        """Pages change; the web server says how fast."""
        self.web.pages["/"] = titled("New")
        await self.store("/", "Old", ago=2 * HOUR_MS)

        self.assertEqual(await self.preview("/"), {"og:title": "New"})
        self.assertEqual(await self.preview("/"), {"og:title": "New"})
        self.assertEqual(self.web.asked, ["/"])

    async def test_lifetimes(self) -> None:
        """A page that wants to be requested each time is not, and none is shown for years."""
        for path, header, seconds in (
            ("/never", "no-store", 300),
            ("/always", "max-age=99999999", 86_400),
            ("/sometimes", "max-age=600", 600),
            ("/unsaid", "public", 3_600),
        ):
            self.web.pages[path] = titled("T", headers={"Cache-Control": header})
            await self.preview(path)
            key = sha256((self.site + path).encode()).digest()

            row = await self.query(_times_of, key)

            self.assertEqual(row[1] - row[0], seconds * 1_000, path)

    async def test_the_preview_of_a_time(self) -> None:
        """A message of last week is shown with the page of last week."""
        await self.store("/", "Older", ago=5 * HOUR_MS)
        await self.store("/", "Old", ago=3 * HOUR_MS)
        await self.store("/", "New", ago=HOUR_MS // 2)

        for ago, title in (
            (0, "New"),
            (HOUR_MS // 4, "New"),
            (2 * HOUR_MS + 60_000, "Old"),
            (4 * HOUR_MS + 60_000, "Older"),
            # Of these times there is none.
            (HOUR_MS, "New"),
            (9 * HOUR_MS, "New"),
            (-9 * HOUR_MS, "New"),
        ):
            shown = await self.preview("/", ts=self.now - ago)
            self.assertEqual(shown, {"og:title": title}, ago)
        self.assertEqual(self.web.asked, [])

    async def test_times_that_are_not_possible(self) -> None:
        """Numbers that the database cannot hold are times nevertheless."""
        self.web.pages["/"] = titled("T")

        for ts in (-(2**63) - 1, -1, 2**63, 2**64):
            got = await self.ask(f"{self.site}/", ts=ts)
            self.assertIn(got.status, (200, 400), ts)
        await self.fails(400, "M_INVALID_PARAM", f"{self.site}/", ts="yesterday")


class RetentionTests(StoredTestCase):
    async def test_old_previews_go_with_their_pictures(self) -> None:
        """What strangers have sent is not kept for long."""
        old = await self.store("/1", "Old", ago=4 * DAY_MS, image=b"old")
        new = await self.store("/2", "New", ago=2 * DAY_MS, image=b"new")
        assert old is not None
        assert new is not None

        await self.clean_up()

        self.assertEqual([await self.has_file(old), await self.has_file(new)], [False, True])
        self.assertEqual(await self.query(count_previews), 1)
        self.assertEqual(len(self.stored_files()), 1)

    async def test_the_number_of_previews_is_bounded(self) -> None:
        """Users cannot fill the database with URLs."""
        for number in range(105):
            await self.store(f"/{number}", "T", ago=number * 1_000, image=str(number).encode())

        await self.clean_up()

        self.assertEqual(await self.query(count_previews), 100)
        self.assertEqual(len(self.stored_files()), 100)
        self.assertEqual(
            [await self.has_file(f"of{number}") for number in (99, 100)], [True, False]
        )

    async def test_a_picture_that_is_gone_is_fetched_again(self) -> None:
        """The cache of files may be full before a preview is old."""
        self.web.pages["/"] = page(og(title="T", image="/picture"))
        self.web.pages["/picture"] = Page(PICTURE, "image/png")
        gone = (await self.preview("/"))["og:image"].rpartition("/")[2]
        await self.query(delete_media, MediaId("example.org", gone))

        preview = await self.preview("/")

        self.assertEqual((await self.image(preview)).body, PICTURE)
        self.assertNotEqual(preview["og:image"].rpartition("/")[2], gone)

    async def test_a_picture_without_a_preview(self) -> None:
        """A crash between the two leaves a file that goes when it has not been used for a month."""
        await self.store_file("left", b"left", self.now - 31 * DAY_MS)

        await self.clean_up()

        self.assertEqual((await self.has_file("left"), self.stored_files()), (False, []))


async def _times_of(db: Any, key: bytes) -> Any:
    cursor = await db.execute(
        "SELECT fetched_at, expires_at FROM url_previews WHERE url_hash = %s", (key,)
    )
    return await cursor.fetchone()
