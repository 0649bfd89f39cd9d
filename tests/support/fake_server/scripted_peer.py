"""A scripted peer: another server, over real TLS on loopback, with responses that the test writes.

It can behave as no server should. It signs requests with its own key, like any server.
"""

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from homeserver.protocol.signing.canonical_json import encode_canonical
from homeserver.protocol.signing.signatures import SigningKey, sign_json
from homeserver.protocol.signing.x_matrix import authorize
from tests.support.certificates import CertificateAuthority

SILENT = NOT_DONE_YET
KEYS = "/_matrix/key/v2/server"

Behaviour = Callable[[Request], Any]


class Seen:
    """A request that came in."""

    def __init__(self, request: Request) -> None:
        assert request.content is not None
        self.method = request.method.decode()
        self.uri = request.uri.decode()
        self.headers = request.requestHeaders
        self.body = request.content.read()

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        values = self.headers.getRawHeaders(name)
        return values[0] if values else None


class ScriptedPeer(Resource):
    """Responds with `answers` of a path: JSON, or the result of a function of the request.

    A function may return raw bytes, `SILENT`, or JSON. All requests are in `seen`.
    """

    isLeaf = True

    def __init__(
        self,
        authority: CertificateAuthority,
        *,
        certified_for: str = "127.0.0.1",
        seed: bytes = b"p" * 32,
    ) -> None:
        super().__init__()
        self.seen: list[Seen] = []
        self.answers: dict[str, Any] = {}
        self.key = SigningKey.from_seed("peer", seed)
        files = authority.issue(certified_for, file_name=f"peer-{secrets.token_hex(4)}")
        context = DefaultOpenSSLContextFactory(str(files.private_key), str(files.certificate))
        site = Site(self)
        site.noisy = False
        self._listening = reactor.listenSSL(  # type: ignore[attr-defined]
            0, site, context, interface="127.0.0.1"
        )
        self.port: int = self._listening.getHost().port
        self.name = f"127.0.0.1:{self.port}"
        self.answers[KEYS] = lambda _: self.published()

    async def stop(self) -> None:
        """Take no more connections."""
        await self._listening.stopListening()

    def published(self, **changes: Any) -> dict[str, Any]:
        """The keys that a server publishes, signed."""
        response = {
            "server_name": self.name,
            "valid_until_ts": int((reactor.seconds() + 86_400) * 1000),  # type: ignore[attr-defined]
            "verify_keys": {self.key.key_id: {"key": self.key.verify_key}},
            "old_verify_keys": {},
        }
        return sign_json({**response, **changes}, self.name, self.key)

    def requests_to(self, path: str) -> list[Seen]:
        """The requests for a path."""
        return [one for one in self.seen if one.uri.partition("?")[0] == path]

    async def request(
        self,
        http: HTTPClient,
        url: str,
        destination: str,
        method: str,
        uri: str,
        content: Any = None,
        **headers: str,
    ) -> tuple[int, Any]:
        """Send a signed request; returns status and JSON. `headers` replace the default ones."""
        body = None if content is None else encode_canonical(content)
        signed = str(authorize(method, uri, self.name, destination, body, self.key))
        response = await http.request(
            method, url + uri, data=body, headers={"Authorization": signed, **headers}
        )
        return response.code, msgspec.json.decode(await response.content())

    def render(self, request: Request) -> Any:
        self.seen.append(Seen(request))
        behaviour = self.answers.get(request.path.decode())
        if behaviour is None:
            request.setResponseCode(404)
            behaviour = {"errcode": "M_UNRECOGNIZED", "error": "There is nothing here"}
        answer = behaviour(request) if callable(behaviour) else behaviour
        if answer is SILENT or isinstance(answer, bytes):
            return answer
        return msgspec.json.encode(answer)


def error(status: int, errcode: str, **members: Any) -> Behaviour:
    """An error as servers return it."""

    def answer(request: Request) -> Any:
        request.setResponseCode(status)
        return {"errcode": errcode, "error": "No", **members}

    return answer


def plain(status: int, body: bytes, **headers: str) -> Behaviour:
    """A response that no homeserver gives."""

    def answer(request: Request) -> bytes:
        request.setResponseCode(status)
        for name, value in headers.items():
            request.setHeader(name, value)
        return body

    return answer
