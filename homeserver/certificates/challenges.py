"""`/.well-known/acme-challenge/{token}`: proof that the names of a certificate lead to this server.

The authority requests it from port 80 of each name while an order is in progress (HTTP-01). Every
other request of a client to that port is redirected to HTTPS, at a name of the certificate and
never at the name that the client wrote: no link to this server leads to another one.

Spec: https://www.rfc-editor.org/rfc/rfc8555#section-8.3
"""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from homeserver.protocol.errors import NotFound
from homeserver.web.request import Request
from homeserver.web.routes import OTHER_PATHS, Auth, Response, Route

PATH = "/.well-known/acme-challenge/"
PROBE_PATH = PATH + "doctor"
"""A path without a challenge; the response names this server."""

MAX_CHALLENGES = 200
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{1,256}")
# What a request target may have; everything else is percent-encoded.
_TARGET = "!#$%&'()*+,/:;=?@[]~"


class Challenges:
    """The responses to the challenges of the order in progress. Any thread may change them."""

    def __init__(self) -> None:
        self._responses: dict[str, str] = {}

    def add(self, token: str, key_authorization: str) -> None:
        """Serve a response. Raises `ValueError` if it is not one (RFC 8555, 8.1)."""
        begin, _, thumbprint = key_authorization.partition(".")
        if _TOKEN.fullmatch(token) is None or begin != token:
            raise ValueError("the token of a challenge is malformed")
        if _THUMBPRINT.fullmatch(thumbprint) is None:
            raise ValueError("the response to a challenge is malformed")
        if len(self._responses) >= MAX_CHALLENGES:
            raise ValueError("there are too many challenges")
        self._responses[token] = key_authorization

    def clear(self) -> None:
        """Serve none: the order has ended."""
        self._responses.clear()

    def response(self, token: str) -> str | None:
        """The response for a token, if it belongs to the order in progress."""
        return self._responses.get(token)


class NoSuchChallenge(NotFound):
    """There is no such challenge. It says which server this is, for `homeserver doctor`."""

    def __init__(self, server_name: str) -> None:
        super().__init__("There is no order with this token")
        self._server_name = server_name

    def body(self) -> dict[str, object]:
        return super().body() | {"server_name": self._server_name}


class ChallengesApi:
    """The resource `acme` of a listener.

    `public_baseurl` says at which port its host has HTTPS; other names have it at port 443.
    """

    def __init__(
        self,
        challenges: Challenges,
        server_name: str,
        names: Sequence[str],
        public_baseurl: str | None,
    ) -> None:
        self._challenges = challenges
        self._server_name = server_name
        self._addresses = https_addresses(names, public_baseurl)

    def routes(self) -> list[Route]:
        return [
            Route("GET", PATH + "{token}", self.get_challenge, Auth.NONE),
            Route("GET", OTHER_PATHS, self.redirect, Auth.NONE, page=True),
        ]

    def get_challenge(self, token: str) -> Response:
        """The response to the challenge with this token."""
        found = self._challenges.response(token)
        if found is None:
            raise NoSuchChallenge(self._server_name)
        return Response(200, found.encode(), {"Content-Type": "text/plain"})

    def redirect(self, request: Request) -> Response:
        """Redirect to the same path by HTTPS."""
        host, _, _ = (request.header(b"Host") or "").lower().partition(":")
        usual = next(iter(self._addresses.values()))
        # A target that begins otherwise would continue the host: `GET .evil.example HTTP/1.1`.
        path = request.path if request.path.startswith(b"/") else b"/"
        target = path + (b"?" + request.query if request.query else b"")
        location = self._addresses.get(host.rstrip("."), usual) + quote(target, safe=_TARGET)
        return Response(301, b"", {"Location": location, "Content-Type": "text/plain"})


def https_addresses(names: Sequence[str], public_baseurl: str | None) -> dict[str, str]:
    """The address of each name, without a path; first the one that clients use most."""
    addresses = {name: f"https://{name}" for name in names}
    parts: Any = urlsplit(public_baseurl or "")
    if parts.scheme == "https" and parts.hostname in addresses:
        port = f":{parts.port}" if parts.port not in (None, 443) else ""
        usual = {parts.hostname: f"https://{parts.hostname}{port}"}
        addresses = usual | addresses | usual
    return addresses
