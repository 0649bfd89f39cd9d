"""URL previews: what clients see of web pages."""

from typing import Any, ClassVar

from twisted.internet.defer import Deferred, gatherResults

from tests.media.media_client import MediaTestCase
from tests.media.pictures import encode, halves
from tests.media.web_pages import OLD_PREVIEW, PREVIEW, Page, PreviewTestCase, og, page, titled
from tests.support.reactor import until

PICTURE = encode(halves(120, 80))


class DisabledTests(MediaTestCase):
    async def test_previews_are_off_by_default(self) -> None:
        """A server requests no pages for its users unless its operator has said so."""
        for path in (PREVIEW, OLD_PREVIEW):
            got = await self.send("GET", path, by=self.alice, url="https://example.org")

            self.assertEqual((got.status, got.errcode), (404, "M_UNRECOGNIZED"))


class PageTests(PreviewTestCase):
    async def test_open_graph(self) -> None:
        """A page that describes itself is shown as it wants."""
        self.web.pages["/"] = page(
            og(
                title="A title",
                type="article",
                url="https://a.example",
                description="Some text",
            )
            + '<meta property="article:author" content="Someone"><title>Another</title>'
        )

        self.assertEqual(
            await self.preview("/"),
            {
                "og:title": "A title",
                "og:description": "Some text",
                "og:type": "article",
                "og:url": "https://a.example",
                "article:author": "Someone",
            },
        )

    async def test_the_picture_becomes_a_file_of_this_server(self) -> None:
        """A client that shows a preview tells the other server nothing."""
        self.web.pages["/a/"] = page(og(title="T", image="../picture", image_width="9999"))
        self.web.pages["/picture"] = Page(PICTURE, "text/html")

        preview = await self.preview("/a/")
        picture = await self.image(preview)

        self.assertEqual(preview["og:image:type"], "image/png")
        self.assertEqual((preview["og:image:width"], preview["og:image:height"]), (120, 80))
        self.assertEqual(preview["matrix:image:size"], len(PICTURE))
        self.assertEqual((picture.status, picture.body), (200, PICTURE))
        self.assertEqual(picture.headers["content-type"], "image/png")

    async def test_a_plain_page(self) -> None:
        """Most pages do not describe themselves, and say something nevertheless."""
        self.web.pages["/"] = page(
            "<title>  The\n title </title>",
            "<nav><p>Menu</p></nav><p>First <b>words</b>.</p><script>no()</script><p>More.</p>"
            '<img src="icon.png" width=16 height=16><img src="/picture" width=200 height="120">',
        )
        self.web.pages["/picture"] = Page(PICTURE, "image/png")

        preview = await self.preview("/")

        self.assertEqual(preview["og:title"], "The title")
        self.assertEqual(preview["og:description"], "First words. More.")
        self.assertEqual((await self.image(preview)).body, PICTURE)
        self.assertEqual(self.web.asked, ["/", "/picture"])

    async def test_other_descriptions(self) -> None:
        """Pages describe themselves in several ways."""
        self.web.pages["/twitter"] = page(
            '<meta name="twitter:title" content="T"><meta name="twitter:description" content="D">'
            '<meta name="twitter:image" content="/picture"><title>Other</title>'
        )
        self.web.pages["/meta"] = page('<meta name="Description" content="D">', "<h1>T</h1>")
        self.web.pages["/picture"] = Page(PICTURE, "image/png")

        preview = await self.preview("/twitter")

        self.assertEqual((preview["og:title"], preview["og:description"]), ("T", "D"))
        self.assertEqual(preview["og:image:width"], 120)
        self.assertEqual(await self.preview("/meta"), {"og:title": "T", "og:description": "D"})

    async def test_oembed(self) -> None:
        """A page whose description is at another URL is shown with it."""
        self.web.pages["/"] = page(
            '<link rel="alternate" type="application/json+oembed" href="/oembed?url=x">'
        )
        self.web.pages["/oembed"] = Page(
            b'{"version": "1.0", "type": "video", "title": "A film", "provider_name": "Films",'
            b' "author_name": "Someone", "thumbnail_url": "/picture"}',
            "application/json",
        )
        self.web.pages["/picture"] = Page(PICTURE, "image/png")

        preview = await self.preview("/")

        self.assertEqual(preview["og:title"], "A film")
        self.assertEqual(preview["og:site_name"], "Films")
        self.assertEqual(preview["og:type"], "video.other")
        self.assertEqual((await self.image(preview)).body, PICTURE)

    async def test_oembed_that_fails(self) -> None:
        """The page still says what it says."""
        link = '<link rel="alternate" type="application/json+oembed" href="/oembed/'
        for number, content in enumerate([b"[" * 100_000, b"[1]", b'{"title": 1}', b"\xff", b""]):
            self.web.pages[f"/{number}"] = page(f'<title>T</title>{link}{number}">')
            self.web.pages[f"/oembed/{number}"] = Page(content, "application/json")

            self.assertEqual(await self.preview(f"/{number}"), {"og:title": "T"}, content)

    async def test_a_url_of_a_picture(self) -> None:
        """A link to a picture is shown as the picture."""
        self.web.pages["/picture.png"] = Page(PICTURE, "image/png")

        preview = await self.preview("/picture.png")

        self.assertEqual(preview["og:image:width"], 120)
        self.assertEqual((await self.image(preview)).body, PICTURE)

    async def test_a_url_of_a_film(self) -> None:
        """A link to a film or a sound is shown with its name; it is not fetched."""
        self.web.pages["/a%20film.mp4"] = Page(b"x" * 1_000, "video/mp4")

        self.assertEqual(
            await self.preview("/a%20film.mp4"),
            {
                "og:title": "a film.mp4",
                "og:type": "video.other",
                "og:video": f"{self.site}/a%20film.mp4",
                "og:video:type": "video/mp4",
            },
        )

    async def test_other_content(self) -> None:
        """Of what is no page there is nothing to say, which is no error."""
        self.web.pages["/"] = Page(b"%PDF", "application/pdf")

        self.assertEqual(await self.preview("/"), {})

    async def test_character_sets(self) -> None:
        """Pages of all ages can be read."""
        for number, (charset, head, header) in enumerate(
            [
                ("utf-8", "", "text/html"),
                ("cp1252", "", "text/html"),
                ("iso8859-15", "", "text/html; charset=ISO-8859-15"),
                ("gbk", '<meta charset="gbk">', "text/html"),
                ("utf-16", "", "text/html"),
                ("utf-8", "", "text/html; charset=punycode"),
            ]
        ):
            word = "中文" if charset == "gbk" else "Grüße"
            text = f"<html><head>{head}<title>{word}</title></head></html>"
            self.web.pages[f"/{number}"] = Page(text.encode(charset), header)

            self.assertEqual(await self.preview(f"/{number}"), {"og:title": word}, charset)

    async def test_what_the_web_server_sees(self) -> None:
        """It learns the name of this server, and nothing of the user."""
        self.web.pages["/"] = page()

        await self.preview("/?a=b#fragment")

        headers = self.web.headers[0]
        self.assertIn("example.org", headers["user-agent"])
        self.assertEqual(headers["accept-language"], "en")
        self.assertEqual({"cookie", "authorization", "referer"} & headers.keys(), set())

    async def test_the_deprecated_endpoint(self) -> None:
        """Old clients see previews, too."""
        self.web.pages["/"] = titled("T")

        for endpoint in (OLD_PREVIEW, OLD_PREVIEW.replace("v3", "r0")):
            self.assertEqual(await self.preview("/", endpoint=endpoint), {"og:title": "T"})


class CacheTests(PreviewTestCase):
    async def test_concurrent_requests_are_one_fetch(self) -> None:
        """A link in a room of a thousand users is not an attack on its server."""
        self.web.pages["/"] = self.web.hang
        asking = [Deferred.fromCoroutine(self.preview("/")) for _ in range(5)]
        await until(lambda: bool(self.web.hanging))

        self.web.hanging[0].write(b"<title>T</title>")
        self.web.hanging[0].finish()

        self.assertEqual(await gatherResults(asking), [{"og:title": "T"}] * 5)
        self.assertEqual(self.web.asked, ["/"])

    async def test_a_preview_is_cached(self) -> None:
        """The second user sees what the first one saw; a fragment is the page's own affair."""
        self.web.pages["/"] = titled("T")
        await self.preview("/")
        bob = await self.register("bob")

        await self.preview("/#part", by=bob)
        await self.restart_server(self.alice)
        self.assertEqual(await self.preview("/"), {"og:title": "T"})

        self.assertEqual(self.web.asked, ["/"])

    async def test_a_failure_is_cached_for_a_while(self) -> None:
        """A server that is down is not asked for each client."""
        for _ in range(3):
            await self.fails(502, "M_UNKNOWN", f"{self.site}/missing")

        self.assertEqual(self.web.asked, ["/missing"])


class DeniedTests(PreviewTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "url_previews": {
            "enabled": True,
            "ports": [80, 443],
            "denied_hosts": ["*.Internal.example", "tracker.example"],
        }
    }

    async def test_urls_that_are_not_permitted(self) -> None:
        """The operator decides, by host and port; nothing is requested."""
        for url in (
            "http://host.internal.example/",
            "http://HOST.internal.EXAMPLE./",
            "https://tracker.example/a",
            "http://public.example:8080/",
            "http://tracker\uff0eexample/",
            "http://a%2etracker.example/",
            "http://a;b.example/",
            f"http://{'a.' * 200}example/",
        ):
            await self.fails(403, "M_FORBIDDEN", url)

    async def test_urls_that_are_not_valid(self) -> None:
        """Only pages of the web have previews."""
        for url in (
            "",
            "ftp://example.com/",
            "file:///etc/passwd",
            "http://",
            "//example.com",
            "http://user:password@example.com/",
            "http://example.com:99999/",
            "http://[::1/",
            "http://" + "a" * 5_000,
        ):
            await self.fails(400, "M_INVALID_PARAM", url)
        got = await self.send("GET", PREVIEW, by=self.alice)
        self.assertEqual((got.status, got.errcode), (400, "M_MISSING_PARAM"))

    async def test_urls_that_are_no_text(self) -> None:
        """Whatever bytes a client sends, the response is that of this API."""
        for sent in ("%FF", "%ED%A0%80", "%00", "%0d%0a", "a b", "%F0%9F%98%80", "http://%FF/"):
            got = await self.send(
                "GET", f"{PREVIEW}?url=http://tracker.example/{sent}&ts=1", by=self.alice
            )
            self.assertIn(got.errcode, ("M_FORBIDDEN", "M_INVALID_PARAM"), sent)
            got = await self.send("GET", f"{PREVIEW}?url=http://{sent}/", by=self.alice)
            self.assertIn(got.status, (400, 403, 502), sent)

    async def test_users_under_moderation(self) -> None:
        """A suspended user can still read, which includes links; a locked one cannot."""
        admin, bob = await self.register_admin("admin"), await self.register("bob")
        place = f"/_matrix/client/v1/admin/{{}}/{bob.user_id}"

        await admin.request("PUT", place.format("suspend"), {"suspended": True})
        await self.fails(403, "M_FORBIDDEN", "https://tracker.example/", by=bob)
        await admin.request("PUT", place.format("lock"), {"locked": True})
        await self.fails(401, "M_USER_LOCKED", "https://tracker.example/", by=bob)

    async def test_who_may_ask(self) -> None:
        """Previews are for users."""
        guest = await self.register_guest()

        await self.fails(403, "M_GUEST_ACCESS_FORBIDDEN", "http://example.com", by=guest)
        await self.fails(401, "M_MISSING_TOKEN", "http://example.com", by=self.anybody)
