"""A bridge whose every answer the test decides: a real HTTP server in the test's process.

It records what it is asked in `requests`, and `transactions` apart from that. `answers` has
functions by the beginning of the (decoded) path, the longest of which counts; without one the
answer is 404. A function gets the request, and returns the answer, or a coroutine of it.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from homeserver.outbound.graceful_close import ConnectionTracker

TRANSACTIONS = "/_matrix/app/v1/transactions/"


@dataclass(frozen=True)
class Asked:
    """One request of the homeserver."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    token: str | None
    body: Any


@dataclass(frozen=True)
class Answer:
    """One response; a `body` that is not bytes is sent as JSON."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


Answering = Callable[[Asked], Any]


def after(seconds: float, answer: Answer = Answer()) -> Answering:  # it is frozen
    """An answer that takes a while."""

    async def wait(_: Asked) -> Answer:
        done: Deferred[None] = Deferred()
        reactor.callLater(seconds, done.callback, None)  # type: ignore[attr-defined]
        await done
        return answer

    return wait


async def never(_: Asked) -> Answer:
    """No answer at all."""
    await Deferred()
    raise AssertionError


class FakeBridge:
    """`await bridge.stop()` at the end; `url` is that for its registration."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.transactions: list[Asked] = []
        self.answers: dict[str, Answering] = {}
        self._port: Any = None
        self._number = 0
        self._open = ConnectionTracker(reactor)

    def listen(self) -> None:
        """Listen; again after `stop`, at the same port."""
        site = self._open.wrap(Site(_Everything(self)))
        self._port = reactor.listenTCP(  # type: ignore[attr-defined]
            self._number, site, interface="127.0.0.1"
        )
        self._number = self._port.getHost().port

    async def stop(self) -> None:
        """End all connections, and refuse further ones."""
        if self._port is not None:
            await self._port.stopListening()
            self._port = None
            await self._open.end()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._number}"

    def asked(self, path: str) -> list[Asked]:
        """The requests so far whose path begins like this."""
        return [each for each in self.requests if each.path.startswith(path)]

    async def answer(self, request: Asked) -> Answer:
        """What the test wants to be answered."""
        is_transaction = request.path.startswith((TRANSACTIONS, "/transactions/"))
        (self.transactions if is_transaction else self.requests).append(request)
        fitting = [path for path in self.answers if request.path.startswith(path)]
        if not fitting:
            return Answer(404, {"errcode": "M_NOT_FOUND"})
        answer = self.answers[max(fitting, key=len)](request)
        found = await answer if inspect.isawaitable(answer) else answer
        assert isinstance(found, Answer)
        return found


class _Everything(Resource):
    isLeaf = True

    def __init__(self, bridge: FakeBridge) -> None:
        super().__init__()
        self._bridge = bridge

    def render(self, request: Request) -> int:
        answering = Deferred.fromCoroutine(self._bridge.answer(_asked(request)))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addCallback(_send, request)
        answering.addErrback(lambda failure: failure.trap(CancelledError))
        return NOT_DONE_YET


def _asked(request: Request) -> Asked:
    token = request.requestHeaders.getRawHeaders("Authorization", [None])[0]
    content = request.content.read()
    return Asked(
        request.method.decode(),
        unquote(request.path.decode()),
        {
            name.decode(): [value.decode() for value in values]
            for name, values in request.args.items()
        },
        token and token.removeprefix("Bearer "),
        msgspec.json.decode(content) if content else None,
    )


def _send(answer: Answer, request: Request) -> None:
    request.setResponseCode(answer.status)
    for name, value in answer.headers.items():
        request.setHeader(name, value)
    body = answer.body
    request.write(body if isinstance(body, bytes) else msgspec.json.encode(body))
    request.finish()
