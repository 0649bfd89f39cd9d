"""An application service: a real HTTP server that records what it is sent."""

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site


class Bridge(Resource):
    """Answers transactions with `status`; a repeated id is recorded, but not its events.

    `requests` are (method, path, body); `events`, `ephemeral` and so on what was new, in order.
    With `hangs` it does not answer; `answer(request)` may replace the answer to any request.
    """

    isLeaf = True

    def __init__(self, hs_token: str) -> None:
        super().__init__()
        self.status = 200
        self.hangs = False
        self.answer: Callable[[Any], bytes] | None = None
        self.body = b"{}"
        self.requests: list[tuple[str, str, Any]] = []
        self.transactions: dict[str, Any] = {}
        self.most_in_flight = 0
        self._in_flight = 0
        self._authorization = f"Bearer {hs_token}"
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self.port: Any = None

    def start(self, port: int = 0) -> str:
        """Listen, and give the URL."""
        site = Site(self)
        site.noisy = False
        self.port = reactor.listenTCP(port, site, interface="127.0.0.1")
        return f"http://127.0.0.1:{self.port.getHost().port}"

    async def stop(self) -> None:
        """Listen no more."""
        await self.port.stopListening()

    def of(self, kind: str) -> list[Any]:
        """All new items of one kind, in the order of their arrival."""
        return [each for body in self.transactions.values() for each in body.get(kind, [])]

    @property
    def events(self) -> list[Any]:
        return self.of("events")

    def messages(self) -> list[str]:
        """The bodies of all messages."""
        return [each["content"].get("body") for each in self.events if "state_key" not in each]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something was received."""
        if not condition():
            waiting: Deferred[None] = Deferred()
            self._waiting.append((condition, waiting))
            await waiting.addTimeout(20, reactor)

    def render(self, request: Any) -> Any:
        body = msgspec.json.decode(request.content.read() or b"{}")
        path = request.path.decode()
        self.requests.append((request.method.decode(), path, body))
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        request.notifyFinish().addBoth(self._finished)
        if request.getHeader("Authorization") != self._authorization:
            request.setResponseCode(403)
            return b'{"errcode": "M_FORBIDDEN"}'
        if self.answer is not None:
            return self.answer(request)
        if self.hangs:
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        if self.status == 200 and "/transactions/" in path:
            self.transactions.setdefault(path.rpartition("/")[2], body)
        self._notify()
        return self.body

    def _finished(self, _: object) -> None:
        self._in_flight -= 1

    def _notify(self) -> None:
        waiting, self._waiting = self._waiting, []
        for condition, done in waiting:
            if condition():
                done.callback(None)
            else:
                self._waiting.append((condition, done))
