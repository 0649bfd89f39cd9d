"""A client of the content repository, whose responses are raw: status, headers and bytes."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.web.client import Agent, HTTPConnectionPool

from tests.support.actors import Actor, Client
from tests.support.server import ServerTestCase

UPLOAD = "/_matrix/media/v3/upload"
CREATE = "/_matrix/media/v1/create"
DOWNLOAD = "/_matrix/client/v1/media/download"
THUMBNAIL = "/_matrix/client/v1/media/thumbnail"
OLD_DOWNLOAD = "/_matrix/media/v3/download"
OLD_THUMBNAIL = "/_matrix/media/v3/thumbnail"


@dataclass
class Got:
    """A response; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def errcode(self) -> str:
        errcode: str = self.json["errcode"]
        return errcode


class MediaTestCase(ServerTestCase):
    """A server whose users upload and download."""

    async def setUp(self) -> None:
        await super().setUp()
        self._media_pool = HTTPConnectionPool(reactor, persistent=True)
        self._raw = HTTPClient(Agent(reactor, pool=self._media_pool))
        self.addCleanup(self._media_pool.closeCachedConnections)
        self.alice = await self.register("alice")

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        /,
        *,
        by: Client | None = None,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> Got:
        """One request, by a user with a token or without one."""
        actor = by or self.anybody
        return await ask_media(
            self._raw, actor.url, method, path, body, token=actor.token, headers=headers, **query
        )

    async def upload(
        self,
        content: Any,
        content_type: str | None = "text/plain",
        *,
        by: Client | None = None,
        **query: Any,
    ) -> str:
        """Upload a file; its server name and media ID, as in a path."""
        headers = {} if content_type is None else {"Content-Type": content_type}
        got = await self.send(
            "POST", UPLOAD, content, by=by or self.alice, headers=headers, **query
        )
        self.assertEqual(got.status, 200, got.body)
        return path_of(got.json["content_uri"])

    async def download(self, file: str, **options: Any) -> Got:
        """Download a file as alice."""
        options.setdefault("by", self.alice)
        return await self.send("GET", f"{DOWNLOAD}/{file}", **options)

    def stored_files(self) -> list[str]:
        """The names of all files in the media folder."""
        folder = self._directory / "media"
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())

    def lose(self, name: str) -> None:
        """Delete one of the stored files, as an accident would."""
        (self._directory / "media" / name).unlink()

    def restore(self, name: str, content: bytes) -> None:
        """Have a file at a place that `stored_files` might name."""
        path = self._directory / "media" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def path_of(uri: str) -> str:
    """The server name and the media ID of a URI, as in a path."""
    assert uri.startswith("mxc://")
    return quote(uri.removeprefix("mxc://"), safe="/:")


async def ask_media(
    http: HTTPClient,
    url: str,
    method: str,
    path: str,
    body: Any = None,
    /,
    *,
    token: str | None = None,
    headers: dict[str, str] | None = None,
    **query: Any,
) -> Got:
    """One request to a server at a URL."""
    sent = dict(headers or {})
    if token:
        sent["Authorization"] = f"Bearer {token}"
    response = await http.request(
        method,
        url + path,
        params=query,
        data=body,
        headers=sent,
        allow_redirects=False,
        unbuffered=True,
    )
    got = {
        name.decode().lower(): values[0].decode()
        for name, values in response.headers.getAllRawHeaders()
    }
    if isinstance(response.length, int) and method != "HEAD":
        got["content-length"] = str(response.length)
    return Got(response.code, got, await response.content())


async def upload_as(actor: Actor, content: Any, content_type: str, **query: Any) -> str:
    """Upload a file as a user of any server; its server name and media ID, as in a path."""
    got = await ask_media(
        actor._http,
        actor.url,
        "POST",
        UPLOAD,
        content,
        token=actor.token,
        headers={"Content-Type": content_type},
        **query,
    )
    assert got.status == 200, got.body
    return path_of(got.json["content_uri"])


async def get_as(actor: Actor, path: str, **query: Any) -> Got:
    """The response to a GET request of a user of any server."""
    return await ask_media(actor._http, actor.url, "GET", path, token=actor.token, **query)
