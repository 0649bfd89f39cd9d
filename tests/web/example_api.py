"""An API with one of everything, for tests of the server that serves it."""

from typing import Any, ClassVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import NotFound
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route
from tests.web.raw_http import ServerTestCase


class Note(msgspec.Struct):
    text: str
    size: int = 0


class Page(msgspec.Struct):
    limit: int = 10
    via: list[str] = []


class Flush:
    """A rate for one action every ten seconds."""

    per_second = 0.1
    burst = 1


class Notes:
    """An API with one of everything."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Any]] = []
        self.calls: list[Any] = []

    def routes(self) -> list[Route]:
        note = "/_matrix/client/v3/notes/{name}"
        return [
            Route("GET", "/_matrix/client/v3/whoami", self.whoami, Auth.GUEST),
            Route("GET", "/_matrix/client/v3/notes", self.list_notes),
            Route("PUT", note, self.put_note),
            Route("GET", note, self.get_note, Auth.NONE, request_headers=("If-None-Match",)),
            Route("POST", "/upload", self.upload, Auth.NONE, max_body=5000),
            Route("GET", "/maybe", self.maybe, Auth.OPTIONAL),
            Route("GET", "/admin", self.admin, Auth.ADMIN),
            Route("GET", "/missing", self.missing, Auth.NONE),
            Route("GET", "/broken", self.broken, Auth.NONE),
            Route("GET", "/unencodable", self.unencodable, Auth.NONE),
            Route("GET", "/smuggle", self.smuggle, Auth.NONE),
            Route("GET", "/raw", self.raw, Auth.NONE),
            Route("GET", "/html", self.html, Auth.NONE),
            Route("GET", "/large", self.large, Auth.NONE),
            Route("GET", "/address", self.address, Auth.NONE),
            Route("GET", "/poll", self.wait, Auth.NONE, cancellable=True),
            Route("POST", "/write", self.wait, Auth.NONE),
            Route("GET", "/limited", self.missing, Auth.NONE, limit="flush"),
        ]

    async def whoami(self, caller: Requester) -> dict[str, str]:
        return {"user_id": caller.user_id}

    def list_notes(self, query: Page) -> dict[str, Any]:
        return {"limit": query.limit, "via": query.via}

    def put_note(self, caller: Requester, name: str, body: Note) -> None:
        self.calls.append((caller.user_id, name, body))

    def get_note(self, name: str) -> dict[str, str]:
        return {"name": name}

    def upload(self, body: bytes) -> dict[str, int]:
        return {"size": len(body)}

    def maybe(self, caller: Requester | None) -> dict[str, Any]:
        return {"user_id": caller and caller.user_id}

    def admin(self) -> None:
        return None

    async def missing(self) -> None:
        raise NotFound("No such thing")

    def broken(self) -> None:
        raise KeyError("a secret detail")

    def unencodable(self) -> object:
        return {"value": object()}

    def smuggle(self) -> Response:
        return Response(302, None, {"Location": "/\r\nSet-Cookie: a=b"})

    def raw(self) -> msgspec.Raw:
        return msgspec.Raw(b'{"as":  "it is"}')

    def html(self) -> Response:
        return Response(201, b"<p>", {"Content-Type": "text/html"})

    def large(self) -> Response:
        return Response(200, b"x" * 40_000_000)

    def address(self, request: Request) -> dict[str, str]:
        return {"address": request.address}

    async def wait(self) -> dict[str, bool]:
        done: Deferred[None] = Deferred()
        self.waiting.append(done)
        try:
            await done
        except CancelledError:
            self.calls.append("cancelled")
            raise
        self.calls.append("finished")
        return {"waited": True}


class NotesTestCase(ServerTestCase):
    rates: ClassVar = {"flush": Flush()}

    def setUp(self) -> None:
        self.notes = Notes()
        self.serve(*self.notes.routes())
