"""Kill -9 of the server and of the gateway: every message is pushed, in order, nearly always once.

A push whose response the server did not live to record is sent again, with the same event id, which
a phone shows once. Nothing else comes twice.

Spec: https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify
"""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.clients.plain_client import User, register
from tests.crash.senders import Sender
from tests.support.process import SHARED_SECRET, ServerProcess, running_server
from tests.support.program import free_port

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
CRASHES = 3
LOAD_SECONDS = 0.8
PAUSE_SECONDS = 0.01  # between two messages: a gateway in a thread is slow
WAIT_SECONDS = 60.0
IN_FLIGHT = 3  # pushes of one pusher that a crash may leave unrecorded
SETTINGS = {"outbound_http": {"allow_private_addresses": True}}


class CalmSender(Sender):
    """A sender that leaves a gateway the time to follow."""

    def step(self) -> None:
        super().step()
        time.sleep(PAUSE_SECONDS)


class QuietServer(ThreadingHTTPServer):
    """A server that says nothing of clients that were killed."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


class ThreadedGateway:
    """A gateway in threads of its own; `bodies` are the messages that it accepted, by pushkey."""

    def __init__(self) -> None:
        self.port = free_port()
        self.bodies: dict[str, list[str]] = {}
        self.start()

    def start(self) -> None:
        """Listen, on the same port as before."""
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                gateway.accept(body["notification"])
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = QuietServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def accept(self, notification: dict[str, Any]) -> None:
        """Remember a message."""
        if notification.get("type") == "m.room.message":
            pushkey = notification["devices"][0]["pushkey"]
            self.bodies.setdefault(pushkey, []).append(notification["content"]["body"])

    def stop(self) -> None:
        """Accept nothing more."""
        self._server.shutdown()
        self._server.server_close()


class Scene:
    """A sender, and a user with two phones."""

    def __init__(self, server: ServerProcess, gateway: ThreadedGateway) -> None:
        self.server = server
        self.gateway = gateway
        self.alice, bob = [register(server.url, SHARED_SECRET, each) for each in ("alice", "bob")]
        room = bob.create_room(preset="public_chat")
        self.alice.join(room)
        for pushkey in ("one", "two"):
            set_pusher(self.alice, gateway, pushkey)
        self.sender = CalmSender(bob, room)

    def wait_until_pushed(self) -> None:
        """Wait until both phones have the last message."""
        last = list(self.sender.acknowledged)[-1]
        deadline = time.monotonic() + WAIT_SECONDS
        while any(last not in self.gateway.bodies.get(each, ()) for each in ("one", "two")):
            assert time.monotonic() < deadline, self.server.last_output()
            time.sleep(0.05)

    def check(self, most_doubles: int) -> None:
        """Nothing is missing or out of order, and little came twice."""
        sent = [*self.sender.acknowledged]
        for bodies in self.gateway.bodies.values():
            assert list(dict.fromkeys(bodies)) == sent
            assert len(bodies) - len(sent) <= most_doubles


def set_pusher(user: User, gateway: ThreadedGateway, pushkey: str) -> None:
    """Set a pusher of a user."""
    body = {
        "kind": "http",
        "app_id": "org.example.app",
        "pushkey": pushkey,
        "app_display_name": "Example",
        "device_display_name": "Phone",
        "lang": "en",
        "data": {"url": f"http://127.0.0.1:{gateway.port}/_matrix/push/v1/notify"},
    }
    user.request("POST", "/_matrix/client/v3/pushers/set", body)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A fresh server and gateway."""
    gateway = ThreadedGateway()
    with running_server(SETTINGS) as server:
        yield Scene(server, gateway)
    gateway.stop()


def test_killed_server_loses_no_push(scene: Scene) -> None:
    """What was decided about, and what was not yet, is pushed after the next start."""
    scene.sender.start()
    for _ in range(CRASHES):
        time.sleep(LOAD_SECONDS)
        scene.server.kill()
        scene.server.start()
    time.sleep(LOAD_SECONDS)
    scene.sender.stop()

    assert scene.sender.failure is None
    scene.wait_until_pushed()
    scene.check(CRASHES * IN_FLIGHT)


def test_killed_gateway_misses_nothing(scene: Scene) -> None:
    """It gets what it has missed, also if the server was killed meanwhile."""
    scene.sender.start()
    time.sleep(LOAD_SECONDS)
    scene.gateway.stop()
    time.sleep(LOAD_SECONDS / 4)
    scene.server.kill()
    scene.server.start()
    time.sleep(LOAD_SECONDS / 4)
    scene.gateway.start()
    time.sleep(LOAD_SECONDS / 4)
    scene.sender.stop()

    assert scene.sender.failure is None
    scene.wait_until_pushed()
    scene.check(IN_FLIGHT)
