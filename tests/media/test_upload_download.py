"""Uploads and downloads over real sockets: contents, headers, ranges, quotas and hostile input."""

import hashlib
from collections.abc import Callable
from io import BytesIO
from typing import ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.web.client import FileBodyProducer
from twisted.web.iweb import UNKNOWN_LENGTH

from homeserver.media.files import staging
from tests.media.media_client import (
    CREATE,
    DOWNLOAD,
    OLD_DOWNLOAD,
    UPLOAD,
    MediaTestCase,
    path_of,
)

MEBIBYTE = 1_048_576


class UploadTests(MediaTestCase):
    async def test_a_file_comes_back_as_it_was(self) -> None:
        """Users see what others sent them."""
        content = bytes(range(256)) * 4_000

        file = await self.upload(content, "image/png", filename="holiday.png")
        got = await self.download(file)

        self.assertEqual(got.status, 200)
        self.assertEqual(got.body, content)
        self.assertEqual(got.headers["content-type"], "image/png")
        self.assertEqual(got.headers["content-disposition"], "inline; filename=holiday.png")
        self.assertEqual(got.headers["content-length"], str(len(content)))

    async def test_headers_protect_the_browser(self) -> None:
        """A page that a user uploaded cannot act for another user."""
        file = await self.upload(b"<script>alert(1)</script>", "text/html", filename="a.html")

        got = await self.download(file)

        self.assertEqual(got.headers["content-disposition"], "attachment; filename=a.html")
        self.assertEqual(got.headers["x-content-type-options"], "nosniff")
        self.assertEqual(got.headers["cross-origin-resource-policy"], "cross-origin")
        self.assertIn("sandbox; default-src 'none'", got.headers["content-security-policy"])
        self.assertEqual(got.headers["access-control-allow-origin"], "*")
        self.assertIn("private", got.headers["cache-control"])

    async def test_svg_is_never_inline(self) -> None:
        """Pictures that may have scripts are saved, not shown."""
        file = await self.upload(b"<svg/>", "image/svg+xml")

        got = await self.download(file)

        self.assertEqual(got.headers["content-disposition"], "attachment")

    async def test_hostile_names_and_types_are_harmless(self) -> None:
        """A name can break neither a header nor a path."""
        file = await self.upload(
            b"x", "image/png, text/html", filename='../../etc\r\nX-Evil: "1"/ä\u202e'
        )

        got = await self.download(file)

        self.assertEqual(got.headers["content-type"], "application/octet-stream")
        self.assertNotIn("x-evil", got.headers)
        self.assertEqual(
            got.headers["content-disposition"],
            "attachment; filename*=utf-8''..%2F..%2FetcX-Evil%3A%20%221%22%2F%C3%A4%E2%80%AE",
        )

    async def test_nul_in_a_name_is_refused(self) -> None:
        """The database cannot store it."""
        got = await self.send("POST", UPLOAD, b"x", by=self.alice, filename="a\0b")

        self.assertEqual((got.status, got.errcode), (400, "M_INVALID_PARAM"))
        self.assertEqual(self.stored_files(), [])

    async def test_a_name_in_the_path_replaces_the_stored_one(self) -> None:
        """Users save a file under a name of their own."""
        file = await self.upload(b"x", filename="stored.txt")

        got = await self.download(f"{file}/other%20name.txt")

        self.assertEqual(got.headers["content-disposition"], 'inline; filename="other name.txt"')

    async def test_a_file_of_no_byte(self) -> None:
        """An empty file is a file."""
        file = await self.upload(b"", None)

        got = await self.download(file)

        self.assertEqual((got.status, got.body), (200, b""))
        self.assertEqual(got.headers["content-type"], "application/octet-stream")

    async def test_a_body_in_chunks(self) -> None:
        """A client need not know the size in advance."""
        content = b"y" * (3 * MEBIBYTE)

        file = await self.upload(in_chunks(content))

        self.assertEqual((await self.download(file)).body, content)

    async def test_the_same_content_is_stored_once(self) -> None:
        """A picture that is sent to many rooms takes space once."""
        content = b"the same" * 1_000
        digits = hashlib.sha256(content).hexdigest()

        first, second = await self.upload(content), await self.upload(content, "image/gif")

        self.assertNotEqual(first, second)
        self.assertEqual(self.stored_files(), [f"content/{digits[:2]}/{digits[2:]}"])
        self.assertEqual((await self.download(first)).headers["content-type"], "text/plain")
        self.assertEqual((await self.download(second)).headers["content-type"], "image/gif")

    async def test_files_survive_a_restart(self) -> None:
        """Files are permanent."""
        file = await self.upload(b"kept")

        await self.restart_server(self.alice)

        self.assertEqual((await self.download(file)).body, b"kept")

    async def test_head_has_the_headers_alone(self) -> None:
        """A client looks at the size before it downloads."""
        file = await self.upload(b"x" * 5_000)

        got = await self.send("HEAD", f"{DOWNLOAD}/{file}", by=self.alice)

        self.assertEqual((got.status, got.body), (200, b""))
        self.assertEqual(got.headers["accept-ranges"], "bytes")

    async def test_config(self) -> None:
        """Clients do not try to upload what is too large."""
        for path in ("/_matrix/client/v1/media/config", "/_matrix/media/v3/config"):
            got = await self.send("GET", path, by=self.alice)
            self.assertEqual(got.json, {"m.upload.size": 100 * MEBIBYTE})
            self.assertEqual((await self.send("GET", path)).errcode, "M_MISSING_TOKEN")

    async def test_missing_media(self) -> None:
        """No address leads to a file that is not one of the repository."""
        for file in (
            "example.org/nothing",
            "example.org/..%2f..%2fsigning.key",
            "..%2f..%2f/abc",
            "elsewhere.org/abc",
        ):
            got = await self.download(file)
            self.assertEqual((got.status, got.errcode), (404, "M_NOT_FOUND"), file)

    async def test_guests_download_and_do_not_upload(self) -> None:
        """Guests see the pictures of a room."""
        guest = await self.register_guest()
        file = await self.upload(b"for all")

        refused = await self.send("POST", UPLOAD, b"x", by=guest)

        self.assertEqual((await self.download(file, by=guest)).body, b"for all")
        self.assertEqual(refused.errcode, "M_GUEST_ACCESS_FORBIDDEN")

    async def test_a_lost_file_is_not_found(self) -> None:
        """A damaged disk is no internal error."""
        file = await self.upload(b"lost")
        self.lose(self.stored_files()[0])

        got = await self.download(file)

        self.assertEqual((got.status, got.errcode), (404, "M_NOT_FOUND"))

    async def test_suspended_users_do_not_upload(self) -> None:
        """A suspended user cannot spread files."""
        admin = await self.register_admin("admin")
        path = f"/_matrix/client/v1/admin/suspend/{self.alice.user_id}"
        await admin.request("PUT", path, {"suspended": True})

        for method, target in (("POST", UPLOAD), ("POST", CREATE)):
            got = await self.send(method, target, b"", by=self.alice)
            self.assertEqual(got.errcode, "M_USER_SUSPENDED")


class RangeTests(MediaTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.content = bytes(range(256)) * 1_200
        self.file = await self.upload(self.content)

    async def test_a_part_of_a_file(self) -> None:
        """A player seeks without a download of the whole film."""
        got = await self.download(self.file, headers={"Range": "bytes=1000-201000"})

        self.assertEqual(got.status, 206)
        self.assertEqual(got.body, self.content[1_000:201_001])
        self.assertEqual(got.headers["content-range"], f"bytes 1000-201000/{len(self.content)}")
        self.assertEqual(got.headers["content-length"], "200001")

    async def test_no_byte_of_the_range(self) -> None:
        """A client that is past the end learns the size."""
        got = await self.download(self.file, headers={"Range": "bytes=9999999-"})

        self.assertEqual(got.status, 416)
        self.assertEqual(got.headers["content-range"], f"bytes */{len(self.content)}")

    async def test_several_ranges_are_the_whole_file(self) -> None:
        """A small request cannot cause a response without end."""
        got = await self.download(self.file, headers={"Range": "bytes=0-1,5-6"})

        self.assertEqual((got.status, len(got.body)), (200, len(self.content)))

    async def test_a_cached_copy(self) -> None:
        """A browser does not download a picture twice."""
        tag = (await self.download(self.file)).headers["etag"]

        same = await self.download(self.file, headers={"If-None-Match": tag})
        other = await self.download(self.file, headers={"If-None-Match": '"other"'})
        part = await self.download(self.file, headers={"If-Range": tag, "Range": "bytes=0-1"})
        whole = await self.download(self.file, headers={"If-Range": '"x"', "Range": "bytes=0-1"})

        self.assertEqual((same.status, same.body), (304, b""))
        self.assertEqual([other.status, part.status, whole.status], [200, 206, 200])


class DeprecatedEndpointTests(MediaTestCase):
    async def test_they_are_frozen(self) -> None:
        """Who knows an address alone cannot download."""
        file = await self.upload(b"private")

        got = await self.send("GET", f"{OLD_DOWNLOAD}/{file}")
        with_token = await self.send("GET", f"{OLD_DOWNLOAD}/{file}", by=self.alice)

        self.assertEqual((got.status, got.errcode), (404, "M_NOT_FOUND"))
        self.assertEqual(with_token.status, 404)
        self.assertEqual((await self.download(file, by=None)).errcode, "M_MISSING_TOKEN")

    async def test_files_from_before_the_freeze_stay_accessible(self) -> None:
        """A file keeps the access that the setting gave it when it was stored."""
        self.settings = {"media": {"unauthenticated_access": True}}
        await self.restart_server(self.alice)
        before = await self.upload(b"open")
        self.settings = {}
        await self.restart_server(self.alice)
        after = await self.upload(b"closed")

        opened = await self.send("GET", f"{OLD_DOWNLOAD}/{before}/name.txt")
        closed = await self.send("GET", f"{OLD_DOWNLOAD}/{after}")

        self.assertEqual((opened.status, opened.body), (200, b"open"))
        self.assertIn("public", opened.headers["cache-control"])
        self.assertEqual(closed.status, 404)


class LimitTests(MediaTestCase):
    settings: ClassVar = {
        "media": {"max_upload": 1_000_000, "user_quota": 1_500_000, "user_files": 3}
    }

    async def test_a_file_that_is_too_large(self) -> None:
        """One file cannot fill the disk."""
        announced = await self.send("POST", UPLOAD, b"x" * 1_000_001, by=self.alice)
        unannounced = await self.send("POST", UPLOAD, in_chunks(b"x" * 1_000_001), by=self.alice)

        for got in (announced, unannounced):
            self.assertEqual((got.status, got.errcode), (413, "M_TOO_LARGE"))
        self.assertEqual(self.stored_files(), [])

    async def test_the_quota_counts_bytes(self) -> None:
        """One user cannot fill the disk."""
        await self.upload(b"a" * 900_000)

        announced = await self.send("POST", UPLOAD, b"b" * 700_000, by=self.alice)
        unannounced = await self.send("POST", UPLOAD, in_chunks(b"b" * 700_000), by=self.alice)
        bob = await self.register("bob")

        for got in (announced, unannounced):
            self.assertEqual((got.status, got.errcode), (403, "M_FORBIDDEN"))
        await self.upload(b"c" * 600_000)
        await self.upload(b"c" * 900_000, by=bob)

    async def test_the_quota_counts_files(self) -> None:
        """One user cannot fill the database."""
        for number in range(3):
            await self.upload(str(number).encode())

        got = await self.send("POST", UPLOAD, b"one more", by=self.alice)

        self.assertEqual((got.status, got.errcode), (403, "M_FORBIDDEN"))

    async def test_concurrent_uploads_do_not_exceed_it_together(self) -> None:
        """Many uploads at a time do not evade the quota."""
        sending = [
            Deferred.fromCoroutine(self.send("POST", UPLOAD, bytes([n]) * 600_000, by=self.alice))
            for n in range(6)
        ]

        statuses = sorted(got.status for got in await gatherResults(sending))

        self.assertEqual(statuses.count(200), 2)
        self.assertEqual(statuses.count(403), 4)
        self.assertEqual(len(self.stored_files()), 2)

    async def test_a_full_disk(self) -> None:
        """The database on the same disk keeps working."""
        self.settings = {"media": {"min_free_space": 1 << 60}}
        await self.restart_server(self.alice)

        got = await self.send("POST", UPLOAD, b"x", by=self.alice)

        self.assertEqual(got.status, 503)


class AsynchronousUploadTests(MediaTestCase):
    settings: ClassVar = {"media": {"pending_uploads": 2}}

    async def create(self) -> str:
        got = await self.send("POST", CREATE, b"{}", by=self.alice)
        self.assertEqual(got.status, 200, got.body)
        self.assertGreater(got.json["unused_expires_at"], 1_000_000_000_000)
        return path_of(got.json["content_uri"])

    async def test_a_download_waits_for_the_upload(self) -> None:
        """A picture appears as soon as it is there."""
        file = await self.create()
        waiting = Deferred.fromCoroutine(self.download(file, timeout_ms=20_000))

        got = await self.send(
            "PUT",
            f"{UPLOAD}/{file}",
            b"late",
            by=self.alice,
            headers={"Content-Type": "image/png"},
            filename="late.png",
        )

        self.assertEqual((got.status, got.json), (200, {}))
        late = await waiting
        self.assertEqual((late.body, late.headers["content-type"]), (b"late", "image/png"))

    async def test_a_download_does_not_wait_for_ever(self) -> None:
        """The client can show that a file is missing."""
        file = await self.create()

        for timeout in (0, 50, -1):
            got = await self.download(file, timeout_ms=timeout)
            self.assertEqual((got.status, got.errcode), (504, "M_NOT_YET_UPLOADED"))

    async def test_it_happens_once_and_by_its_creator(self) -> None:
        """Nobody replaces the file of another user."""
        bob = await self.register("bob")
        file = await self.create()

        by_bob = await self.send("PUT", f"{UPLOAD}/{file}", b"x", by=bob)
        first = await self.send("PUT", f"{UPLOAD}/{file}", b"first", by=self.alice)
        second = await self.send("PUT", f"{UPLOAD}/{file}", b"second", by=self.alice)
        unknown = await self.send("PUT", f"{UPLOAD}/example.org/unknown", b"x", by=self.alice)
        remote = await self.send("PUT", f"{UPLOAD}/elsewhere.org/abc", b"x", by=self.alice)

        self.assertEqual((by_bob.status, by_bob.errcode), (403, "M_FORBIDDEN"))
        self.assertEqual(first.status, 200)
        self.assertEqual((second.status, second.errcode), (409, "M_CANNOT_OVERWRITE_MEDIA"))
        self.assertEqual((unknown.status, unknown.errcode), (404, "M_NOT_FOUND"))
        self.assertEqual((remote.status, remote.errcode), (404, "M_NOT_FOUND"))
        self.assertEqual((await self.download(file)).body, b"first")

    async def test_the_number_of_unused_addresses_is_bounded(self) -> None:
        """A client cannot fill the database with addresses."""
        file = await self.create()
        await self.create()

        refused = await self.send("POST", CREATE, b"{}", by=self.alice)
        await self.send("PUT", f"{UPLOAD}/{file}", b"used", by=self.alice)

        self.assertEqual((refused.status, refused.errcode), (429, "M_LIMIT_EXCEEDED"))
        await self.create()

    async def test_an_address_expires(self) -> None:
        """Addresses that are never used do not stay."""
        file = await self.create()
        await self.server.parts.db.run(expire_all)

        put = await self.send("PUT", f"{UPLOAD}/{file}", b"x", by=self.alice)
        got = await self.download(file)

        self.assertEqual((put.status, put.errcode), (404, "M_NOT_FOUND"))
        self.assertEqual((got.status, got.errcode), (404, "M_NOT_FOUND"))


class StoreTests(MediaTestCase):
    async def test_what_a_crash_left_is_deleted_at_the_start(self) -> None:
        """A crash leaves no file that nobody can find."""
        left = self._directory / "media" / staging.INCOMING / "left"
        left.write_bytes(b"half a file")

        await self.restart_server(self.alice)

        self.assertFalse(left.exists())

    async def test_an_upload_that_breaks_off_leaves_nothing(self) -> None:
        """A client that dies in the middle costs no space."""
        head = f"POST {UPLOAD} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self.alice.token}\r\n"
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.server.ports[0])
        wire = await connectProtocol(endpoint, Protocol())
        wire.transport.write(f"{head}Content-Length: 5000000\r\n\r\n".encode() + b"x" * 4_000_000)
        await self.until(self.stored_files)

        wire.transport.abortConnection()

        await self.until(lambda: not self.stored_files())

    async def until(self, is_true: Callable[[], object]) -> None:
        while not is_true():
            await deferLater(reactor, 0.01)


async def expire_all(db):  # type: ignore[no-untyped-def]
    await db.execute("UPDATE media SET expires_at = 1 WHERE expires_at IS NOT NULL")


def in_chunks(content: bytes) -> FileBodyProducer:
    """A body whose size the client does not announce."""
    producer = FileBodyProducer(BytesIO(content))
    producer.length = UNKNOWN_LENGTH
    return producer
