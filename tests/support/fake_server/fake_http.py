"""Requests that a scripted server gets, and its valid and invalid responses."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.web.http import Request

CHUNK = 65_536


@dataclass
class Received:
    """One request: its operation, the parts of its path, its query and body, and its origin."""

    operation: str
    path: dict[str, str] = field(default_factory=dict)
    query: dict[str, list[str]] = field(default_factory=dict)
    body: Any = None
    origin: str = ""

    def first(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return self.query.get(name, [default])[0]


class Answer:
    """A response with a status: JSON, or the given bytes unchanged."""

    def __init__(self, status: int, body: Any, **headers: str) -> None:
        self.status = status
        self.headers = {"Content-Type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        self.body = body if isinstance(body, bytes) else msgspec.json.encode(body)

    def write(self, request: Request) -> None:
        """Send it."""
        if request.finished or request._disconnected:
            return
        request.setResponseCode(self.status)
        for name, value in self.headers.items():
            request.setHeader(name, value)
        request.write(self.body)
        request.finish()


class Stall(Answer):
    """No response for as long as the server runs; `first` is sent before it falls silent."""

    def __init__(self, first: bytes = b"") -> None:
        super().__init__(200, first)

    def write(self, request: Request) -> None:
        if self.body:
            request.write(self.body)


class Late(Answer):
    """An answer that takes its time."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status, answer.body)

    def write(self, request: Request) -> None:
        reactor.callLater(1.0, super().write, request)  # type: ignore[attr-defined]


class Break(Answer):
    """The connection is aborted instead of a response."""

    def __init__(self) -> None:
        super().__init__(200, b"")

    def write(self, request: Request) -> None:
        request.transport.abortConnection()


class Endless(Answer):
    """A body that never ends, as fast as the other side takes it; `sent` counts its bytes."""

    def __init__(self) -> None:
        super().__init__(200, b" " * CHUNK)
        self.sent = 0
        self._request: Request | None = None

    def write(self, request: Request) -> None:
        self._request = request
        request.setHeader("Content-Type", "application/json")
        request.registerProducer(self, False)

    def resumeProducing(self) -> None:
        """Called whenever there is room for more."""
        assert self._request is not None
        self.sent += CHUNK
        self._request.write(self.body)

    def stopProducing(self) -> None:
        """Called when the other side has had enough."""


GARBAGE = Answer(200, b"\x00\xff{no json")
FAILURE = Answer(500, {"errcode": "M_UNKNOWN", "error": "out of order"})
NOT_FOUND = Answer(404, {"errcode": "M_NOT_FOUND", "error": "no such thing"})
Handler = Callable[[Received], Answer]


def always(answer: Answer) -> Handler:
    """The handler that gives this response to every request."""
    return lambda _: answer
