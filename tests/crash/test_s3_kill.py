"""Kill -9 while files are uploaded to a bucket, and the memory of large transfers.

Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repository
"""

import http.client
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from homeserver.media.files.s3.bucket import PART_SIZE
from tests.clients.plain_client import User, register
from tests.crash.test_media_kill import Uploader, ask
from tests.media.s3.fake_s3 import keys_in, new_bucket
from tests.support.process import SHARED_SECRET, ServerProcess, running_server

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
CLIENTS = 2
ROUNDS = 4
LARGE = 100 * 1_048_576
MOST_GROWTH = 40 * 1_048_576  # bytes
RECEIVED_AT_ONCE = 65_536


@pytest.fixture
def bucket() -> dict[str, Any]:
    """The settings of a new bucket."""
    return new_bucket()


@pytest.fixture
def server(bucket: dict[str, Any]) -> Iterator[ServerProcess]:
    """A server process with the bucket."""
    with running_server({"media": {"storage": "s3", "s3": bucket}}) as running:
        yield running


def test_acknowledged_files_survive(server: ServerProcess, bucket: dict[str, Any]) -> None:
    """Whenever the server is killed, also in the middle of a large object."""
    user = register(server.url, SHARED_SECRET, "alice")
    clients = [Uploader(user, seed, 2 * PART_SIZE) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    chance = random.Random(11)

    for _ in range(ROUNDS):
        time.sleep(chance.uniform(0.3, 1.5))
        server.kill()
        server.start()
    for client in clients:
        client.stop()
    server.kill()
    server.start()

    files = {name: content for each in clients for name, content in each.acknowledged.items()}
    assert files
    for name, content in files.items():
        status, body = ask(user, "GET", f"/_matrix/client/v1/media/download/{name}")
        assert (status, body == content) == (200, True), name
    assert list((server.directory / "data" / "media" / "incoming").iterdir()) == []
    # Beyond those with a row: one for each upload that a kill hit between its last two steps.
    stored = keys_in(bucket["bucket"])
    assert len(files) <= len(stored) <= len(files) + (ROUNDS + 1) * CLIENTS
    assert server.new_errors() == []


def test_a_large_file_is_never_in_memory(server: ServerProcess) -> None:
    """A film costs no more memory than a picture, up or down."""
    user = register(server.url, SHARED_SECRET, "alice")
    content = os.urandom(1_048_576)
    transfer(user, content)
    pid = server.process_ids()[0]

    up, down = transfer(user, content * (LARGE // len(content)), pid)

    assert up < MOST_GROWTH, up
    assert down < MOST_GROWTH, down


def transfer(user: User, content: bytes, pid: int | None = None) -> tuple[int, int]:
    """Upload a file and download it; the growth of the server's memory in each, in bytes."""
    before = new_peak(pid)
    status, body = ask(user, "POST", "/_matrix/media/v3/upload", content)
    assert status == 200, body
    name = json.loads(body)["content_uri"].removeprefix("mxc://")
    up = peak(pid) - before
    before = new_peak(pid)
    parts = urlsplit(user.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    headers = {"Authorization": f"Bearer {user.token}"}
    connection.request("GET", f"/_matrix/client/v1/media/download/{name}", headers=headers)
    response, place = connection.getresponse(), 0
    while part := response.read(RECEIVED_AT_ONCE):
        assert part == content[place : place + len(part)]
        place += len(part)
    connection.close()
    assert place == len(content)
    return up, peak(pid) - before


def new_peak(pid: int | None) -> int:
    """The memory of a process, from which its peak is measured from now on."""
    if pid is not None:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak(pid)


def peak(pid: int | None) -> int:
    """The peak of a process's memory, in bytes."""
    if pid is None:
        return 0
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [each for each in status.splitlines() if each.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
