"""URL previews and strangers: servers that mean harm, and users who send this server to them."""

import gzip
from typing import Any, ClassVar
from unittest.mock import patch

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.web.server import NOT_DONE_YET, Request

from homeserver.media.previews import preview_fetcher
from homeserver.storage.media.media import usage_of
from tests.media.pictures import bomb, encode, halves
from tests.media.web_pages import HTML, Page, PreviewTestCase, og, page, redirect, titled
from tests.support.reactor import pause, until

PICTURE = encode(halves(120, 80))
OEMBED = '<link rel="alternate" type="application/json+oembed" href="{}">'
PRIVATE = "127.0.0.2"


class PrivateAddressTests(PreviewTestCase):
    """As far as these tests go, 127.0.0.1 is on the internet, and 127.0.0.2 is not."""

    settings: ClassVar[dict[str, Any]] = {"url_previews": {"enabled": True, "ports": []}}

    async def setUp(self) -> None:
        await super().setUp()
        change = patch(
            "homeserver.outbound.networks.is_public_address", lambda address: address != PRIVATE
        )
        change.start()
        self.addCleanup(change.stop)
        self.inside_web, self.inside = self.serve_on(PRIVATE)
        self.inside_web.pages["/"] = titled("A secret")
        self.inside_web.pages["/picture"] = Page(PICTURE, "image/png")
        self.inside_web.pages["/oembed"] = Page(b'{"title": "A secret"}', "application/json")

    async def test_private_addresses_are_not_asked(self) -> None:
        """A user cannot read what only this server can reach."""
        error = await self.fails(502, "M_UNKNOWN", f"{self.inside}/")
        closed = await self.fails(502, "M_UNKNOWN", "http://127.0.0.1:1/")

        # Nor can one find out where something is.
        self.assertEqual(error, closed)
        self.assertEqual(self.inside_web.asked, [])

    async def test_redirects_to_private_addresses(self) -> None:
        """Each redirect is checked like the first request."""
        self.web.pages["/1"] = redirect("/2")
        self.web.pages["/2"] = redirect(f"{self.inside}/")

        await self.fails(502, "M_UNKNOWN", f"{self.site}/1")

        self.assertEqual((self.web.asked, self.inside_web.asked), (["/1", "/2"], []))

    async def test_pictures_and_oembed_at_private_addresses(self) -> None:
        """Whatever a page refers to is checked like the page, with its redirects."""
        self.web.pages["/redirect"] = redirect(f"{self.inside}/picture")
        self.web.pages["/1"] = page(og(title="T", image=f"{self.inside}/picture"))
        self.web.pages["/2"] = page(og(title="T", image="/redirect"))
        self.web.pages["/3"] = page(f"<title>T</title>{OEMBED.format(f'{self.inside}/oembed')}")

        for path in ("/1", "/2", "/3"):
            self.assertEqual(await self.preview(path), {"og:title": "T"})

        self.assertEqual(self.inside_web.asked, [])

    async def test_names_of_private_addresses(self) -> None:
        """What counts is the address to which the connection is made."""
        port = self.inside.rpartition(":")[2]
        with patch(
            "homeserver.outbound.networks._addresses_of", lambda _: ((IPv4Address, PRIVATE),)
        ):
            await self.fails(502, "M_UNKNOWN", f"http://public.example:{port}/")

        self.assertEqual(self.inside_web.asked, [])


class DeniedRedirectTests(PreviewTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "url_previews": {"enabled": True, "ports": [], "denied_hosts": [PRIVATE]},
        "outbound_http": {"allow_private_addresses": True},
    }

    async def test_denied_hosts(self) -> None:
        """A redirect, a picture and oEmbed are not fetched from a denied host, either."""
        denied_web, denied = self.serve_on(PRIVATE)
        self.web.pages["/redirect"] = redirect(denied)
        self.web.pages["/picture"] = page(og(title="T", image=f"{denied}/picture"))
        self.web.pages["/oembed"] = page(f"<title>T</title>{OEMBED.format(denied)}")

        await self.fails(403, "M_FORBIDDEN", denied)
        await self.fails(502, "M_UNKNOWN", f"{self.site}/redirect")
        for path in ("/picture", "/oembed"):
            self.assertEqual(await self.preview(path), {"og:title": "T"})

        self.assertEqual(denied_web.asked, [])


class DeniedNetworkTests(PreviewTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "url_previews": {"enabled": True, "ports": [], "denied_networks": [f"{PRIVATE}/32"]},
        "outbound_http": {"allow_private_addresses": True},
    }

    async def test_denied_networks(self) -> None:
        """A service with a public address can be out of reach, whatever name leads there."""
        denied_web, denied = self.serve_on(PRIVATE)
        port = denied.rpartition(":")[2]
        self.web.pages["/redirect"] = redirect(denied)
        self.web.pages["/"] = titled("T")

        await self.fails(502, "M_UNKNOWN", denied)
        await self.fails(502, "M_UNKNOWN", f"http://[::ffff:{PRIVATE}]:{port}")
        await self.fails(502, "M_UNKNOWN", f"{self.site}/redirect")

        self.assertEqual(await self.preview("/"), {"og:title": "T"})
        self.assertEqual(denied_web.asked, [])


class HostileServerTests(PreviewTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "url_previews": {
            "enabled": True,
            "ports": [],
            "max_page": 65_536,
            "max_image": 100_000,
        },
        "outbound_http": {"allow_private_addresses": True},
    }

    async def test_redirects_end(self) -> None:
        """Two pages that name each other are asked a few times."""
        self.web.pages["/a"], self.web.pages["/b"] = redirect("/b"), redirect("/a")

        await self.fails(502, "M_UNKNOWN", f"{self.site}/a")

        self.assertEqual(len(self.web.asked), 6)

    async def test_slow_pages(self) -> None:
        """A server that sends byte by byte, or nothing at all, is left after a while."""
        self.web.pages["/"] = self.web.hang

        with patch.object(preview_fetcher, "PAGE_SECONDS", 0.2):
            await self.fails(502, "M_UNKNOWN", f"{self.site}/")

        await until(lambda: self.web.hanging[0].channel is None)

    async def test_slow_pictures(self) -> None:
        """The preview comes without its picture."""
        self.web.pages["/"] = page(og(title="T", image="/picture"))
        self.web.pages["/picture"] = self.web.hang

        with patch.object(preview_fetcher, "IMAGE_SECONDS", 0.2):
            self.assertEqual(await self.preview("/"), {"og:title": "T"})

        self.assertEqual(self.stored_files(), [])

    async def test_endless_pages(self) -> None:
        """Of a page without end the beginning is read."""
        ended: list[Any] = []

        def endless(request: Request) -> int:
            request.setHeader("Content-Type", HTML)
            request.notifyFinish().addErrback(ended.append)
            request.write(b"<title>T</title>" + b"x" * 100_000)
            return NOT_DONE_YET

        self.web.pages["/"] = endless

        self.assertEqual(await self.preview("/"), {"og:title": "T"})
        await until(lambda: bool(ended))

    async def test_pictures_that_are_too_large(self) -> None:
        """Neither their bytes nor their pixels are without bound, whatever a server announces."""

        def unannounced(request: Request) -> int:
            request.setHeader("Content-Type", "image/png")
            for _ in range(20):
                request.write(PICTURE + bytes(10_000))
            request.finish()
            return NOT_DONE_YET

        self.web.pages["/announced"] = Page(PICTURE + bytes(100_000), "image/png")
        self.web.pages["/unannounced"] = unannounced
        self.web.pages["/pixels"] = Page(bomb(20_000, 6_000)[:50_000], "image/png")
        for path in list(self.web.pages):
            self.web.pages[f"/of{path}"] = page(og(title="T", image=path))

            self.assertEqual(await self.preview(f"/of{path}"), {"og:title": "T"})
            await self.fails(502, "M_UNKNOWN", self.site + path)

        self.assertEqual(self.stored_files(), [])

    async def test_pictures_that_are_none(self) -> None:
        """The type that a server claims does not count."""
        for number, content in enumerate(
            [b"", b"<svg onload='x()'/>", b"\x89PNG\r\n\x1a\n", b"GIF"]
        ):
            self.web.pages[f"/{number}"] = page(og(title="T", image=f"/picture{number}"))
            self.web.pages[f"/picture{number}"] = Page(content, "image/png")

            self.assertEqual(await self.preview(f"/{number}"), {"og:title": "T"})

        self.assertEqual(self.stored_files(), [])

    async def test_compressed_pages(self) -> None:
        """Nothing is decompressed: a few bytes could become gigabytes."""
        packed = gzip.compress(b"<title>T</title>" + bytes(10_000_000))
        self.web.pages["/"] = Page(packed, headers={"Content-Encoding": "gzip"})

        self.assertNotIn("og:title", await self.preview("/"))
        self.assertNotIn("accept-encoding", self.web.headers[0])

    async def test_errors_of_the_server(self) -> None:
        """A page that says that there is none is not shown as one."""
        for status in (201, 204, 404, 500):
            self.web.pages[f"/{status}"] = titled("No such page", status=status)

            await self.fails(502, "M_UNKNOWN", f"{self.site}/{status}")

    async def test_headers_that_are_garbage(self) -> None:
        """Headers of strangers cause no errors of this server."""
        for number, (name, value) in enumerate(
            [
                ("Content-Type", "text/html; charset=\xff\x01"),
                ("Content-Type", "text/html;" + "a=b;" * 1_000),
                ("Cache-Control", "max-age=" + "9" * 4_000),
                ("Expires", "never"),
                ("Age", "\xb2"),
            ]
        ):
            self.web.pages[f"/{number}"] = titled("T", headers={name: value})

            self.assertEqual(await self.preview(f"/{number}"), {"og:title": "T"}, value[:50])
        for number, location in enumerate(["http://[", "http://a:b@c/", "file:///", "\xff\xfe://"]):
            self.web.pages[f"/to/{number}"] = redirect(location)

            await self.fails(502, "M_UNKNOWN", f"{self.site}/to/{number}")


class HostilePageTests(PreviewTestCase):
    async def test_a_page_that_takes_minutes(self) -> None:
        """The process that reads it ends in time, and the next page is read by another one."""
        attributes = " ".join(f"a{number}=1" for number in range(200_000))
        self.web.pages["/slow"] = page(body=f"<a {attributes}>x</a>")
        self.web.pages["/"] = titled("T")

        await self.fails(502, "M_UNKNOWN", f"{self.site}/slow")

        self.assertEqual(await self.preview("/"), {"og:title": "T"})

    async def test_what_a_page_may_not_say(self) -> None:
        """Only this server names a picture; links of other kinds than web pages are left out."""
        self.web.pages["/"] = page(
            og(title="T", image="mxc://example.org/stolen", image_alt="x", url="javascript:x()")
            + '<meta property="matrix:image:size" content="1">'
            + '<meta property="og:video" content="data:text/html,x">'
        )

        self.assertEqual(await self.preview("/"), {"og:title": "T"})


class LoadTests(PreviewTestCase):
    async def test_one_user_cannot_stop_the_previews_of_others(self) -> None:
        """Pages that do not respond delay only who asks for many of them."""
        slow_web, slow = self.serve_on(PRIVATE)
        bob = await self.register("bob")
        self.web.pages["/"] = titled("T")
        for number in range(60):
            slow_web.pages[f"/{number}"] = slow_web.hang
        asking = [
            Deferred.fromCoroutine(self.ask(f"{slow}/{number}", by=bob)) for number in range(60)
        ]
        await until(lambda: any(each.called for each in asking))
        await until(lambda: len(slow_web.hanging) == 4)

        self.assertEqual(await self.preview("/"), {"og:title": "T"})

        refused = [each for each in asking if each.called]
        self.assertEqual([(await each).errcode for each in refused], ["M_LIMIT_EXCEEDED"] * 2)
        for each in asking:
            each.addErrback(lambda _: None).cancel()

    async def test_pages_cannot_turn_this_server_against_another(self) -> None:
        """A server gets few requests at a time, however many pages name it."""
        victim_web, victim = self.serve_on(PRIVATE)
        victim_web.pages["/picture"] = victim_web.hang
        asking, asked = [], []
        for number in range(6):
            web, site = self.serve_on(f"127.0.1.{number + 1}")
            web.pages["/"] = page(og(title="T", image=f"{victim}/picture"))
            asked.append(web.asked)
            asking.append(Deferred.fromCoroutine(self.ask(site)))
        await until(lambda: all(asked) and len(victim_web.hanging) >= 4)
        await pause(0.5)

        self.assertEqual(len(victim_web.hanging), 4)

        for each in asking:
            each.addErrback(lambda _: None).cancel()

    async def test_a_server_stops_in_the_middle_of_fetches(self) -> None:
        """No page of a stranger keeps a server from stopping."""
        self.web.pages["/page"] = self.web.hang
        self.web.pages["/"] = page(og(title="T", image="/picture"))
        self.web.pages["/picture"] = self.web.hang
        asking = [Deferred.fromCoroutine(self.ask(self.site + path)) for path in ("/", "/page")]
        await until(lambda: len(self.web.hanging) == 2)

        for each in asking:
            each.addErrback(lambda _: None)
        ended_well = await self.server.stop()

        self.assertTrue(ended_well)

    async def test_pictures_count_against_no_quota(self) -> None:
        """Users do not choose the pictures that others send them."""
        self.web.pages["/"] = Page(PICTURE, "image/png")
        await self.preview("/")

        usage = await self.server.parts.db.run(usage_of, self.alice.user_id)

        self.assertEqual((usage.files, usage.bytes), (0, 0))

    async def test_a_fetch_continues_without_its_client(self) -> None:
        """A client that comes back finds the preview."""
        self.web.pages["/"] = self.web.hang
        asking = Deferred.fromCoroutine(self.preview("/"))
        await until(lambda: bool(self.web.hanging))

        asking.addErrback(lambda _: None).cancel()
        self.web.hanging[0].write(b"<title>T</title>")
        self.web.hanging[0].finish()

        self.assertEqual(await self.preview("/"), {"og:title": "T"})
        self.assertEqual(self.web.asked, ["/"])


class RateTests(PreviewTestCase):
    settings: ClassVar[dict[str, Any]] = {
        **PreviewTestCase.settings,
        "rate_limits": {"url_preview": {"per_second": 0.01, "burst": 2}},
    }

    async def test_fetches_are_limited(self) -> None:
        """A user has a few pages fetched; what is cached is not limited."""
        for path in ("/1", "/2", "/3"):
            self.web.pages[path] = titled("T")
        await self.preview("/1")
        await self.preview("/2")

        await self.fails(429, "M_LIMIT_EXCEEDED", f"{self.site}/3")

        self.assertEqual(await self.preview("/1"), {"og:title": "T"})
