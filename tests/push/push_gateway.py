"""A push gateway on this machine: a real HTTP server, which remembers what it was sent.

It can behave as no gateway should.

Spec: https://spec.matrix.org/v1.19/push-gateway-api/
"""

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

PATH = "/_matrix/push/v1/notify"
Answer = Callable[[Request, Any], Any]


class PushGateway(Resource):
    """`received` are the notifications that it accepted, `seen` all of them.

    `answer(request, notification)` gives the response: JSON, bytes as they are, or `NOT_DONE_YET`.
    """

    isLeaf = True

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []
        self.received: list[dict[str, Any]] = []
        self.answer: Answer = lambda request, notification: {"rejected": []}
        self.port = port
        self.start()

    def start(self) -> None:
        """Listen, on the same port as before."""
        site = Site(self)
        site.noisy = False
        self._site = site
        self._connections: list[Any] = []
        self._listening = reactor.listenTCP(  # type: ignore[attr-defined]
            self.port, site, interface="127.0.0.1"
        )
        self.port = self._listening.getHost().port
        self.url = f"http://127.0.0.1:{self.port}{PATH}"

    async def stop(self) -> None:
        """Close the listener and all connections."""
        await maybeDeferred(self._listening.stopListening)
        for channel in self._connections:
            channel.loseConnection()
        self._connections = []

    def render(self, request: Request) -> Any:
        assert request.content is not None
        body = msgspec.json.decode(request.content.read())
        notification = body["notification"]
        if request.transport is not None and request.transport not in self._connections:
            self._connections.append(request.transport)
        self.seen.append(notification)
        answer = self.answer(request, notification)
        if answer is NOT_DONE_YET or isinstance(answer, bytes):
            return answer
        if request.code == 200:
            self.received.append(notification)
        return msgspec.json.encode(answer)

    def bodies(self, pushkey: str | None = None) -> list[str]:
        """The texts of the messages that it accepted, for one pushkey or all."""
        return [
            each["content"]["body"]
            for each in self.received
            if each.get("type") == "m.room.message"
            and pushkey in (None, each["devices"][0]["pushkey"])
        ]

    def counts(self) -> list[int]:
        """The counts of the notifications without an event."""
        return [each["counts"]["unread"] for each in self.received if "event_id" not in each]


def pusher(gateway: PushGateway, pushkey: str = "phone", **more: Any) -> dict[str, Any]:
    """What a client sets a pusher with; `data` is added to the URL."""
    data = {"url": gateway.url, **more.pop("data", {})}
    return {
        "kind": "http",
        "app_id": "org.example.app",
        "pushkey": pushkey,
        "app_display_name": "Example",
        "device_display_name": "Phone",
        "lang": "en",
        "data": data,
        **more,
    }
