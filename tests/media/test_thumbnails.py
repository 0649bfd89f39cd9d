"""Thumbnails over real sockets: sizes, methods, orientation, animation, and hostile pictures."""

import os
import signal
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from twisted.internet.defer import Deferred, gatherResults

from homeserver.media.files.incoming_file import IncomingFile
from tests.media.media_client import (
    OLD_THUMBNAIL,
    THUMBNAIL,
    Got,
    MediaTestCase,
)
from tests.media.pictures import BLUE, RED, animation, bomb, decode, encode, halves, rotated


class ThumbnailTestCase(MediaTestCase):
    settings: ClassVar = {"media": {"max_thumbnail_pixels": 1_000_000}}

    async def thumbnail(
        self, file: str, width: Any, height: Any, method: str | None = None, **query: Any
    ) -> Got:
        """Request a thumbnail as alice."""
        if method is not None:
            query["method"] = method
        return await self.send(
            "GET", f"{THUMBNAIL}/{file}", by=self.alice, width=width, height=height, **query
        )

    def processes(self) -> list[int]:
        """The processes that make thumbnails."""
        workers = self.server.parts.media.workers
        return [each._process.pid for each in workers._all]


class ThumbnailTests(ThumbnailTestCase):
    async def test_scale_keeps_the_aspect_ratio(self) -> None:
        """A picture in a timeline is not distorted."""
        file = await self.upload(encode(halves(1_000, 500), "JPEG"), "image/jpeg")

        got = await self.thumbnail(file, 300, 200)

        self.assertEqual(got.status, 200)
        self.assertEqual(got.headers["content-type"], "image/jpeg")
        self.assertEqual(got.headers["content-disposition"], "inline; filename=thumbnail.jpeg")
        self.assertEqual(decode(got.body).size, (320, 160))
        self.assertIn("sandbox", got.headers["content-security-policy"])

    async def test_crop_shows_the_middle(self) -> None:
        """An avatar is a square."""
        file = await self.upload(encode(halves(1_000, 500)), "image/png")

        got = await self.thumbnail(file, 64, 64, "crop")

        picture = decode(got.body).convert("RGB")
        self.assertEqual(picture.size, (96, 96))
        self.assertTrue(is_near(picture.getpixel((5, 50)), RED))
        self.assertTrue(is_near(picture.getpixel((90, 50)), BLUE))

    async def test_a_smaller_picture_is_served_as_it_is(self) -> None:
        """Nothing is enlarged."""
        content = encode(halves(20, 10))
        file = await self.upload(content, "application/octet-stream")

        got = await self.thumbnail(file, 32, 32, "crop")

        self.assertEqual((got.body, got.headers["content-type"]), (content, "image/png"))
        self.assertEqual(len(self.stored_files()), 1)

    async def test_a_full_disk_is_not_held_against_a_picture(self) -> None:
        """There is a thumbnail as soon as there is space."""
        file = await self.upload(encode(halves(1_000, 500)), "image/png")
        store = self.server.parts.media.store
        begin = store.begin

        async def begin_on_full_disk(announced: int | None = None) -> IncomingFile:
            incoming = await begin(announced)
            incoming.path.symlink_to("/dev/full")
            return incoming

        with patch.object(store, "begin", begin_on_full_disk):
            refused = await self.thumbnail(file, 64, 64, "crop")
        got = await self.thumbnail(file, 64, 64, "crop")

        self.assertEqual((refused.status, got.status), (503, 200))

    async def test_a_lost_picture(self) -> None:
        """It is as lost as its download, and back when the operator has restored it."""
        content = encode(halves(1_000, 500))
        file = await self.upload(content, "image/png")
        stored = self.stored_files()[0]
        self.lose(stored)

        lost = await self.thumbnail(file, 64, 64, "crop")
        self.restore(stored, content)
        restored = await self.thumbnail(file, 64, 64, "crop")

        self.assertEqual((lost.status, lost.errcode), (404, "M_NOT_FOUND"))
        self.assertEqual(restored.status, 200)

    async def test_a_wish_beyond_all_sizes_gets_the_picture(self) -> None:
        """A thumbnail is never smaller than the wish."""
        content = encode(halves(1_100, 900), "JPEG")
        file = await self.upload(content, "image/jpeg")

        got = await self.thumbnail(file, 1_000, 800)

        self.assertEqual(got.body, content)

    async def test_orientation(self) -> None:
        """Pictures of telephones stand upright, though their pixels lie."""
        for orientation, left_is_red, turned in (
            (1, True, False),
            (2, False, False),
            (3, False, False),
            (6, None, True),
            (8, None, True),
        ):
            file = await self.upload(rotated(1_000, 500, orientation), "image/jpeg")

            got = await self.thumbnail(file, 320, 240)

            picture = decode(got.body).convert("RGB")
            self.assertEqual(picture.size, (120, 240) if turned else (320, 160), orientation)
            self.assertFalse(dict(picture.getexif()))
            if turned:
                top = RED if orientation == 6 else BLUE
                self.assertTrue(is_near(picture.getpixel((60, 5)), top), orientation)
            else:
                left = RED if left_is_red else BLUE
                self.assertTrue(is_near(picture.getpixel((5, 80)), left), orientation)

    async def test_transparency_stays(self) -> None:
        """A sticker has no black background."""
        picture = halves(1_000, 500, "RGBA")
        picture.putalpha(100)
        file = await self.upload(encode(picture), "image/png")

        got = await self.thumbnail(file, 320, 240)

        self.assertEqual(got.headers["content-type"], "image/png")
        self.assertEqual(decode(got.body).getpixel((0, 0))[3], 100)

    async def test_unusual_kinds_of_pixels(self) -> None:
        """Scanners and printers have pictures, too."""
        for mode, kind in (
            ("L", "PNG"),
            ("1", "PNG"),
            ("P", "GIF"),
            ("CMYK", "JPEG"),
            ("LA", "PNG"),
        ):
            file = await self.upload(encode(halves(900, 500, mode), kind), "image/png")

            got = await self.thumbnail(file, 320, 240)

            self.assertEqual((got.status, decode(got.body).size), (200, (320, 178)), mode)

    async def test_animated_only_if_requested(self) -> None:
        """Users who want no movement see none."""
        for kind in ("GIF", "WEBP", "PNG"):
            file = await self.upload(animation(kind), f"image/{kind.lower()}")

            still = await self.thumbnail(file, 320, 240)
            also_still = await self.thumbnail(file, 320, 240, animated="false")
            moving = await self.thumbnail(file, 320, 240, animated="true")

            for got in (still, also_still):
                self.assertFalse(getattr(decode(got.body), "is_animated", False), kind)
            self.assertEqual(moving.headers["content-type"], "image/webp")
            self.assertEqual(decode(moving.body).n_frames, 4)

    async def test_a_small_animation_is_still_if_that_is_requested(self) -> None:
        """The picture itself would move."""
        content = animation("GIF", width=20, height=10)
        file = await self.upload(content, "image/gif")

        still = await self.thumbnail(file, 32, 32)
        moving = await self.thumbnail(file, 32, 32, animated="true")

        self.assertEqual(decode(still.body).size, (20, 10))
        self.assertFalse(getattr(decode(still.body), "is_animated", False))
        self.assertEqual(moving.body, content)

    async def test_of_a_long_animation_the_first_picture_is_shown(self) -> None:
        """Its frames would take minutes and gigabytes."""
        file = await self.upload(animation("GIF", frames=40), "image/gif")

        got = await self.thumbnail(file, 320, 240, animated="true")

        self.assertEqual((got.status, got.headers["content-type"]), (200, "image/jpeg"))

    async def test_concurrent_requests_make_one(self) -> None:
        """A picture in a large room is decoded once."""
        file = await self.upload(encode(halves(1_000, 500), "JPEG"), "image/jpeg")

        everyone = await gatherResults(
            [Deferred.fromCoroutine(self.thumbnail(file, 320, 240)) for _ in range(20)]
        )

        self.assertEqual({got.body for got in everyone}, {everyone[0].body})
        jobs = sum(each.jobs for each in self.server.parts.media.workers._all)
        self.assertEqual(jobs, 1)

    async def test_it_is_kept(self) -> None:
        """A thumbnail is made once, and is there after a restart, too."""
        file = await self.upload(encode(halves(1_000, 500), "JPEG"), "image/jpeg")
        first = await self.thumbnail(file, 320, 240)

        await self.restart_server(self.alice)
        again = await self.thumbnail(file, 320, 240)

        self.assertEqual(first.body, again.body)
        self.assertEqual(self.processes(), [])

    async def test_the_deprecated_endpoint_is_frozen(self) -> None:
        """Who knows an address alone sees nothing."""
        file = await self.upload(encode(halves(1_000, 500), "JPEG"), "image/jpeg")

        got = await self.send("GET", f"{OLD_THUMBNAIL}/{file}", width=32, height=32)

        self.assertEqual((got.status, got.errcode), (404, "M_NOT_FOUND"))

    async def test_of_public_files_it_serves_thumbnails(self) -> None:
        """Old clients show pictures if the operator allows it."""
        self.settings = {"media": {"unauthenticated_access": True}}
        await self.restart_server(self.alice)
        file = await self.upload(encode(halves(1_000, 500), "JPEG"), "image/jpeg")

        got = await self.send("GET", f"{OLD_THUMBNAIL}/{file}", width=32, height=32, method="crop")

        self.assertEqual(decode(got.body).size, (32, 32))


class HostileThumbnailTests(ThumbnailTestCase):
    async def test_wishes_that_make_no_sense(self) -> None:
        """A wrong wish is the client's error."""
        file = await self.upload(encode(halves(100, 100)), "image/png")
        for width, height, method in (
            (0, 10, None),
            (-1, 10, None),
            (10, "a", None),
            (10**30, 10, None),
            (65_536, 1, None),
            (10, 10, "stretch"),
        ):
            got = await self.thumbnail(file, width, height, method)
            self.assertEqual((got.status, got.errcode), (400, "M_INVALID_PARAM"))
        got = await self.send("GET", f"{THUMBNAIL}/{file}", by=self.alice, width=10)
        self.assertEqual((got.status, got.errcode), (400, "M_MISSING_PARAM"))

    async def test_what_is_no_picture(self) -> None:
        """Encrypted files and documents have no thumbnail, and are no internal error."""
        whole = encode(halves(1_000, 500), "JPEG")
        for content in (
            b"",
            b"text",
            os.urandom(10_000),
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            whole[: len(whole) // 2],
            b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
            b"GIF89a" + b"\xff" * 500,
            b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\0" * 50,
        ):
            file = await self.upload(content, "image/png")
            got = await self.thumbnail(file, 32, 32, "crop")
            self.assertEqual((got.status, got.errcode), (400, "M_UNKNOWN"), content[:20])

    async def test_decompression_bombs(self) -> None:
        """A small file cannot fill the memory, and is not tried twice."""
        for content in (bomb(30_000, 30_000)[:100_000], bomb(1_100, 1_000)):
            file = await self.upload(content, "image/png")

            first = await self.thumbnail(file, 32, 32, "crop")
            pids = self.processes()
            second = await self.thumbnail(file, 32, 32, "crop")

            for got in (first, second):
                self.assertEqual((got.status, got.errcode), (413, "M_TOO_LARGE"))
            self.assertEqual(self.processes(), pids)

    async def test_a_process_that_dies(self) -> None:
        """The next picture gets its thumbnail from a new process."""
        first = await self.upload(encode(halves(1_000, 500), "JPEG"), "image/jpeg")
        second = await self.upload(encode(halves(1_000, 600), "JPEG"), "image/jpeg")
        await self.thumbnail(first, 320, 240)
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

        lost = await self.thumbnail(second, 320, 240)
        got = await self.thumbnail(second, 640, 480)

        self.assertEqual((lost.status, got.status), (413, 200))
        self.assertEqual([path for path in self.stored_files() if path.startswith("incoming")], [])

    async def test_no_process_outlives_the_server(self) -> None:
        """A stopped server leaves nothing behind."""
        file = await self.upload(encode(halves(1_000, 500), "JPEG"), "image/jpeg")
        await self.thumbnail(file, 320, 240)
        pids = self.processes()
        self.assertEqual(len(pids), 1)

        await self.stop_server()

        self.assertFalse([pid for pid in pids if is_running(pid)])

    async def test_processes_have_limits(self) -> None:
        """Whatever a decoder does, the server and its machine go on."""
        file = await self.upload(encode(halves(1_000, 500), "JPEG"), "image/jpeg")
        await self.thumbnail(file, 320, 240)

        limits = limits_of(self.processes()[0])

        self.assertRegex(limits, r"Max address space +805306368 ")
        self.assertRegex(limits, r"Max cpu time +\d+ ")
        self.assertRegex(limits, r"Max core file size +0 ")


def is_running(pid: int) -> bool:
    """Whether a process exists."""
    return Path(f"/proc/{pid}").exists()


def limits_of(pid: int) -> str:
    """The limits of a process, as Linux shows them."""
    return Path(f"/proc/{pid}/limits").read_text("utf-8")


def is_near(pixel: Any, colour: tuple[int, int, int]) -> bool:
    """Whether two colours are the same but for the losses of JPEG."""
    return all(abs(one - other) < 40 for one, other in zip(pixel, colour, strict=False))
