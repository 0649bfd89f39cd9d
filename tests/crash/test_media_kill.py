"""Kill -9 while files are uploaded: what was acknowledged is there, and the rest leaves no trace.

Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repository
"""

import http.client
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.clients.plain_client import User, register
from tests.media.pictures import encode, halves
from tests.support.process import SHARED_SECRET, ServerProcess, running_server

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
CLIENTS = 4
ROUNDS = 6
MAX_SIZE = 3_000_000


class Uploader(threading.Thread):
    """A client that uploads one file after the other, and knows which ones were acknowledged."""

    def __init__(self, user: User, seed: int, max_size: int = MAX_SIZE) -> None:
        super().__init__(daemon=True)
        self.acknowledged: dict[str, bytes] = {}
        self._user = user
        self._max_size = max_size
        self._random = random.Random(seed)
        self._ended = threading.Event()

    def stop(self) -> None:
        """Finish the current upload, and end."""
        self._ended.set()
        self.join(30)
        assert not self.is_alive()

    def run(self) -> None:
        while not self._ended.is_set():
            content = os.urandom(self._random.randrange(self._max_size))
            try:
                status, body = ask(self._user, "POST", "/_matrix/media/v3/upload", content)
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
                continue
            if status == 200:
                uri = json.loads(body)["content_uri"]
                self.acknowledged[uri.removeprefix("mxc://")] = content


def ask(user: User, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    parts = urlsplit(user.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        headers = {"Authorization": f"Bearer {user.token}", "Content-Type": "video/mp4"}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    """A server process."""
    with running_server() as running:
        yield running


def test_acknowledged_files_survive(server: ServerProcess) -> None:
    """A picture whose upload was acknowledged is there, and half a file is never served."""
    user = register(server.url, SHARED_SECRET, "alice")
    clients = [Uploader(user, seed) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    chance = random.Random(7)

    for _ in range(ROUNDS):
        time.sleep(chance.uniform(0.1, 0.6))
        server.kill()
        server.start()
    for client in clients:
        client.stop()
    server.kill()
    server.start()

    files = {name: content for each in clients for name, content in each.acknowledged.items()}
    assert len(files) > ROUNDS
    for name, content in files.items():
        status, body = ask(user, "GET", f"/_matrix/client/v1/media/download/{name}")
        assert (status, body == content) == (200, True), name
    folder = server.directory / "data" / "media"
    assert list((folder / "incoming").iterdir()) == []
    stored = [path for path in (folder / "content").rglob("*") if path.is_file()]
    # Beyond those with a row: one for each upload that a kill hit between its last two steps.
    assert len(files) <= len(stored) <= len(files) + (ROUNDS + 1) * CLIENTS
    assert server.new_errors() == []


def test_processes_of_thumbnails_end_with_their_server(server: ServerProcess) -> None:
    """A killed server leaves nothing behind that takes memory."""
    user = register(server.url, SHARED_SECRET, "alice")
    picture = encode(halves(1_000, 500), "JPEG")
    _, body = ask(user, "POST", "/_matrix/media/v3/upload", picture)
    name = json.loads(body)["content_uri"].removeprefix("mxc://")
    path = f"/_matrix/client/v1/media/thumbnail/{name}?width=320&height=240"
    status, _ = ask(user, "GET", path)
    workers = [pid for pid in server.process_ids() if "worker.py" in command_of(pid)]

    server.kill()

    assert (status, len(workers)) == (200, 1)
    deadline = time.monotonic() + 10
    while command_of(workers[0]):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def command_of(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8")
    except OSError:
        return ""
