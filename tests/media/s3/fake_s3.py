"""S3 for tests: moto's server in a process of its own, and a relay before it that can fail."""

import functools
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

from tests.support.program import free_port

ACCESS_KEY = {"access_key_id": "tests", "secret_access_key": "a secret of tests"}
START_SECONDS = 60.0
# However the tests end, their end of its input is closed then, and the server ends, too.
PROGRAM = """
import os, sys, threading
from moto.server import main
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
main(sys.argv[1:])
"""
_numbers = count(1)
_processes: list[subprocess.Popen[bytes]] = []  # kept: their input is open as long

Fault = Callable[["Relay"], bool]
"""Handles a request wrongly, and returns true; or returns false for what is to be relayed."""


@functools.cache
def s3_endpoint() -> str:
    """The web address of a server that is started once, and ends with the process."""
    port = free_port()
    command = [sys.executable, "-c", PROGRAM, "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": "1048576"},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _processes.append(process)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return f"http://127.0.0.1:{port}"
        except OSError:
            assert process.poll() is None, "moto's server has ended"
            assert time.monotonic() < deadline, "moto's server does not start"
            time.sleep(0.05)


@functools.cache
def s3_client() -> Any:
    """A client with which tests look at the buckets, without any relay."""
    import botocore.session

    return botocore.session.get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=s3_endpoint(),
        aws_access_key_id=ACCESS_KEY["access_key_id"],
        aws_secret_access_key=ACCESS_KEY["secret_access_key"],
    )


def new_bucket() -> dict[str, Any]:
    """The settings of a new bucket."""
    name = f"media-{os.getpid()}-{next(_numbers)}"
    s3_client().create_bucket(Bucket=name)
    return {
        "bucket": name,
        "region": "us-east-1",
        "endpoint": s3_endpoint(),
        "prefix": "tests/",
        "path_style": True,
        **ACCESS_KEY,
    }


def keys_in(bucket: str, prefix: str = "tests/content/") -> list[str]:
    """The keys of all objects below a prefix, without it."""
    page = s3_client().list_objects_v2(Bucket=bucket, Prefix=prefix)
    return [each["Key"].removeprefix(prefix) for each in page.get("Contents", [])]


def unfinished_in(bucket: str) -> list[str]:
    """The keys of uploads in parts that are neither complete nor aborted."""
    page = s3_client().list_multipart_uploads(Bucket=bucket)
    return [each["Key"] for each in page.get("Uploads", [])]


class FailingS3:
    """A relay to the server, at `endpoint`; `fault` is what goes wrong, if anything does.

    `requests` are the methods and paths of those that have arrived.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.requests: list[str] = []
        self._server = _Server(self)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Accept no more connections."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, s3: FailingS3) -> None:
        self.s3 = s3
        super().__init__(("127.0.0.1", 0), Relay)


class Relay(BaseHTTPRequestHandler):
    """One connection to the relay."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def relay(self) -> None:
        """Pass a request on, and its response back, unless the fault handles it."""
        s3 = self.server.s3
        s3.requests.append(f"{self.command} {self.path}")
        if s3.fault is not None and s3.fault(self):
            self.close_connection = True
            return
        response = self.ask()
        self.respond(response.status, dict(response.getheaders()), response.read())

    def ask(self) -> http.client.HTTPResponse:
        """The response of the server behind the relay."""
        size = int(self.headers.get("Content-Length", 0))
        behind = http.client.HTTPConnection(s3_endpoint().removeprefix("http://"))
        self.connection.settimeout(30)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        behind.request(self.command, self.path, self.rfile.read(size), headers)
        return behind.getresponse()

    def respond(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send a response; a body that is shorter than announced is sent as it is."""
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "server", "date"):
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = relay

    def log_message(self, *arguments: object) -> None:
        """Write no log."""


def fails_with(status: int, code: str = "InternalError") -> Fault:
    """All requests are refused."""

    def refuse(relay: Relay) -> bool:
        relay.rfile.read(int(relay.headers.get("Content-Length", 0)))
        body = f"<Error><Code>{code}</Code><Message>by the test</Message></Error>".encode()
        headers = {"Content-Length": str(len(body)), "Content-Type": "application/xml"}
        relay.respond(status, headers, body)
        return True

    return refuse


def answers(status: int, body: bytes, **headers: str | None) -> Fault:
    """All requests get one response, which is not that of S3; `None` omits a header."""
    sent = {"Content-Length": str(len(body)), "Content-Type": "text/html", **headers}
    present = {name: value for name, value in sent.items() if value is not None}

    def answer(relay: Relay) -> bool:
        relay.rfile.read(int(relay.headers.get("Content-Length", 0)))
        relay.respond(status, present, body)
        return True

    return answer


def breaks_off(relay: Relay) -> bool:
    """Responses with objects end in the middle."""
    if relay.command != "GET" or "list-type" in relay.path:
        return False
    response = relay.ask()
    body = response.read()
    relay.respond(response.status, dict(response.getheaders()), body[: len(body) // 2])
    return True


def closes(relay: Relay) -> bool:
    """Connections are closed without a response."""
    return relay.command is not None
