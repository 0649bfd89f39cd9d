"""Web servers for previews: pages, pictures, bad behaviour; and a client that asks for previews."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tests.media.media_client import Got, MediaTestCase
from tests.support.actors import Client

PREVIEW = "/_matrix/client/v1/media/preview_url"
OLD_PREVIEW = "/_matrix/media/v3/preview_url"
HTML = "text/html; charset=utf-8"

Behaviour = Callable[[Request], Any]


@dataclass
class Page:
    """A response: status, type, headers and body."""

    body: bytes
    content_type: str | None = HTML
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, request: Request) -> bytes:
        request.setResponseCode(self.status)
        request.setHeader("Content-Type", self.content_type)
        for name, value in self.headers.items():
            request.setHeader(name, value)
        return self.body


def page(head: str = "", body: str = "", **options: Any) -> Page:
    """A page of HTML."""
    text = f"<!DOCTYPE html><html><head>{head}</head><body>{body}</body></html>"
    return Page(text.encode(), **options)


def titled(title: str, **options: Any) -> Page:
    """A page of HTML that is only a title."""
    return page(f"<title>{title}</title>", **options)


def og(**properties: str) -> str:
    """The elements of OpenGraph properties."""
    return "".join(
        f'<meta property="og:{name.replace("_", ":")}" content="{value}">'
        for name, value in properties.items()
    )


def redirect(target: str) -> Page:
    """A redirect."""
    return Page(b"", status=302, headers={"Location": target})


class WebServer(Resource):
    """A web server of a stranger. `pages` by path say what it does; `asked` are requested paths."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[str, Behaviour] = {}
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.hanging: list[Request] = []

    def render(self, request: Request) -> Any:
        path = request.path.decode()
        self.asked.append(path)
        self.headers.append(
            {
                name.decode().lower(): values[0].decode()
                for name, values in request.requestHeaders.getAllRawHeaders()
            }
        )
        behave = self.pages.get(path)
        if behave is None:
            request.setResponseCode(404)
            return b"there is no such page"
        return behave(request)

    def hang(self, request: Request) -> int:
        """Send the head of a page, and nothing more."""
        self.hanging.append(request)
        request.setHeader("Content-Type", HTML)
        request.write(b"<html><head>")
        return NOT_DONE_YET


class PreviewTestCase(MediaTestCase):
    """A server that shows previews, and a web server on this machine."""

    settings: dict[str, Any] = {  # noqa: RUF012  # never changed
        "url_previews": {"enabled": True, "ports": []},
        "outbound_http": {"allow_private_addresses": True},
    }

    async def setUp(self) -> None:
        await super().setUp()
        self.web = WebServer()
        self.site = self.serve(self.web)

    def serve_on(self, address: str) -> tuple[WebServer, str]:
        """Another web server at an address of this machine, and its URL."""
        web = WebServer()
        return web, self.serve(web, address)

    def serve(self, web: WebServer, address: str = "127.0.0.1") -> str:
        """Start a web server; its URL without a path."""
        site = Site(web)
        port: Any = reactor.listenTCP(0, site, interface=address)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        return f"http://{address}:{port.getHost().port}"

    async def ask(
        self, url: str, *, by: Client | None = None, endpoint: str = PREVIEW, **query: Any
    ) -> Got:
        """The response to a request for a preview, by alice."""
        return await self.send("GET", endpoint, by=by or self.alice, url=url, **query)

    async def preview(self, path: str, **query: Any) -> dict[str, Any]:
        """The preview of a page of the web server."""
        got = await self.ask(self.site + path, **query)
        self.assertEqual(got.status, 200, got.body)
        preview: dict[str, Any] = got.json
        return preview

    async def fails(self, status: int, errcode: str, url: str, **options: Any) -> str:
        """There is no preview of a URL; what the error says."""
        got = await self.ask(url, **options)
        self.assertEqual((got.status, got.errcode), (status, errcode), got.body)
        error: str = got.json["error"]
        return error

    async def image(self, preview: dict[str, Any]) -> Got:
        """The picture of a preview, as alice downloads it."""
        uri: str = preview["og:image"]
        self.assertTrue(uri.startswith("mxc://example.org/"), uri)
        return await self.download(quote(uri.removeprefix("mxc://"), safe="/:"))
