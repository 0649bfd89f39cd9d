"""Media: large files up and down, beside the barest transfer of Twisted, and a thumbnail.

Both servers run on the same cores, and both have each uploaded file on disk before they answer. The
client sends from memory and discards what it receives.
"""

import http.client
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from typing import Any, Self

from PIL import Image

from benchmarks.load.figures import Figure
from benchmarks.load.population import Account, Population
from benchmarks.load.processes import resident_bytes
from tests.support.program import CHECKOUT, free_port

FILES = 100
FILE_SIZE = 50 * 1_048_576  # bytes
AT_A_TIME = 8
TURN = 24  # files that one server transfers before the other does
MEBIBYTE = 1_048_576
RECEIVE_BYTES = 1_048_576
UPLOAD = "/_matrix/media/v3/upload"
DOWNLOAD = "/_matrix/client/v1/media/download/"
THUMBNAIL = "/_matrix/client/v1/media/thumbnail/"
SAMPLE_SECONDS = 0.02
PROBE_SECONDS = 0.002


def measure(population: Population, size: float, cpus: set[int]) -> list[Figure]:
    """All figures; `size` scales the number of files."""
    count = max(4, int(FILES * size))
    server = HttpFiles(population.server.port, population.accounts(AT_A_TIME))
    content = os.urandom(FILE_SIZE)
    server.upload(0, content[:1_000])  # what is made on first use is not memory of files
    with bare_server(cpus) as bare, Memory(population.server.pid) as memory:
        bare_up, up = alternately(
            lambda number: bare.upload(number, content),
            lambda number: server.upload(number, content),
            count,
        )
        up_grown = memory.grown()
        bare_down, down = alternately(bare.download, server.download, count)
        down_grown = memory.grown()
    rates = [count * FILE_SIZE / MEBIBYTE / seconds for seconds in (bare_up, up, bare_down, down)]
    return [
        Figure("upload", rates[1], "MiB/s", 0.7 * rates[0], note=f"bare: {rates[0]:.0f} MiB/s"),
        Figure("download", rates[3], "MiB/s", 0.7 * rates[2], note=f"bare: {rates[2]:.0f} MiB/s"),
        Figure("memory of uploads", up_grown / MEBIBYTE, "MiB", 30, at_most=True),
        Figure("memory of downloads", down_grown / MEBIBYTE, "MiB", 30, at_most=True),
        *thumbnails(server),
    ]


def alternately(
    one: Callable[[int], None], other: Callable[[int], None], count: int
) -> tuple[float, float]:
    """The seconds that each of two servers takes for so many transfers.

    They take turns, since a disk is not as fast after some gigabytes as it was before.
    """
    seconds = [0.0, 0.0]
    for start in range(0, count, TURN):
        numbers = range(start, min(start + TURN, count))
        for server, transfer in enumerate((one, other)):
            seconds[server] += timed(transfer, numbers)
    return seconds[0], seconds[1]


def timed(transfer: Callable[[int], None], numbers: Sequence[int]) -> float:
    """The seconds of some transfers, `AT_A_TIME` of them at a time."""
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        list(threads.map(transfer, numbers))
    return time.perf_counter() - began


class HttpFiles:
    """Clients of the content repository, one in each thread."""

    def __init__(self, port: int, accounts: list[Account]) -> None:
        self._port = port
        self._tokens = itertools.cycle([account.token for account in accounts])
        self._own = threading.local()
        self.names: dict[int, str] = {}

    def upload(self, number: int, content: bytes, content_type: str = "video/mp4") -> None:
        """Upload a file; contents differ in their last bytes."""
        body = (
            [memoryview(content)[:-8], b"%08d" % number]
            if content_type == "video/mp4"
            else [content]
        )
        headers = {
            **self._headers,
            "Content-Type": content_type,
            "Content-Length": str(sum(map(len, body))),
        }
        answer = self._request("POST", UPLOAD, body, headers)
        self.names[number] = json.loads(answer)["content_uri"].removeprefix("mxc://")

    def download(self, number: int) -> None:
        """Download a file and discard it."""
        connection = self._connection()
        connection.request("GET", DOWNLOAD + self.names[number], headers=self._headers)
        response = connection.getresponse()
        buffer, received = bytearray(RECEIVE_BYTES), 0
        while count := response.readinto(buffer):
            received += count
        assert received == FILE_SIZE, received

    def get(self, path: str) -> bytes:
        """The body of a response."""
        return self._request("GET", path, None, self._headers)

    @property
    def _headers(self) -> dict[str, str]:
        """Each thread is a user of its own."""
        if not hasattr(self._own, "headers"):
            self._own.headers = {"Authorization": f"Bearer {next(self._tokens)}"}
        headers: dict[str, str] = self._own.headers
        return headers

    def _request(self, method: str, path: str, body: Any, headers: dict[str, str]) -> bytes:
        connection = self._connection()
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, blocksize=262_144)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._own.connection = connection
        return connection


class BareFiles:
    """A client of `bare_files.py`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._own = threading.local()

    def upload(self, number: int, content: bytes) -> None:
        """Upload a file."""
        sock = self._socket()
        sock.sendall(b"PUT %d %d\r\n" % (number, len(content)))
        sock.sendall(content)
        assert sock.recv(100) == b"stored\r\n"

    def download(self, number: int) -> None:
        """Download a file and discard it."""
        sock = self._socket()
        sock.sendall(b"GET %d\r\n" % number)
        buffer, left = bytearray(RECEIVE_BYTES), FILE_SIZE
        while left:
            count = sock.recv_into(buffer)
            assert count, "the connection ended"
            left -= count

    def _socket(self) -> socket.socket:
        sock: socket.socket | None = getattr(self._own, "sock", None)
        if sock is None:
            sock = self._own.sock = socket.create_connection(("127.0.0.1", self._port))
        return sock


@contextmanager
def bare_server(cpus: set[int]) -> Iterator[BareFiles]:
    """A process that transfers files, on these cores."""
    with _program("bare_files", cpus) as port:
        yield BareFiles(port)


@contextmanager
def bare_bucket(cpus: set[int]) -> Iterator[dict[str, Any]]:
    """The settings of a bucket, whose service is a process on these cores."""
    with _program("bare_bucket", cpus) as port:
        yield {
            "bucket": "bare",
            "endpoint": f"http://127.0.0.1:{port}",
            "path_style": True,
            "access_key_id": "any",
            "secret_access_key": "any",
        }


@contextmanager
def _program(name: str, cpus: set[int]) -> Iterator[int]:
    """A program of this folder, which has a folder of its own; its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        command = [sys.executable, "-m", f"benchmarks.media.{name}", str(port), folder]
        process = subprocess.Popen(command, cwd=CHECKOUT)
        os.sched_setaffinity(process.pid, cpus)
        try:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            yield port
        finally:
            process.kill()
            process.wait()


class Memory:
    """The largest growth of a process's memory, sampled in a thread."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = self._most = resident_bytes(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def grown(self) -> int:
        """The growth since the beginning, in bytes; the next call begins again."""
        grown = self._most - self._before
        self._most = resident_bytes(self._pid)
        return grown

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._most = max(self._most, resident_bytes(self._pid))


def thumbnails(server: HttpFiles) -> list[Figure]:
    """The time of a thumbnail of a photograph, and for how long others wait meanwhile."""
    seconds, waits = [], []
    for number in range(5):
        server.upload(-1, photograph(number), "image/jpeg")
        if number == 0:
            server.get(f"{THUMBNAIL}{server.names[-1]}?width=32&height=32&method=crop")
        with Probe(server) as probe:
            began = time.perf_counter()
            server.get(f"{THUMBNAIL}{server.names[-1]}?width=800&height=600&method=scale")
            seconds.append(time.perf_counter() - began)
        waits.append(probe.longest)
    return [
        Figure(
            "thumbnail of 4,000 x 3,000",
            sorted(seconds)[2] * 1000,
            "ms",
            150,
            at_most=True,
            note="median of 5, 800 x 600",
        ),
        Figure("other requests meanwhile", max(waits) * 1000, "ms", 20, at_most=True),
    ]


def photograph(number: int) -> bytes:
    """A JPEG of about three megabytes, with the noise of a photograph."""
    size = (4_000, 3_000)
    coarse = [Image.effect_noise((250, 187 + number), 90).resize(size) for _ in range(3)]
    fine = [Image.effect_noise((2_000, 1_500), 25).resize(size) for _ in range(3)]
    picture = Image.blend(Image.merge("RGB", coarse), Image.merge("RGB", fine), 0.35)
    file = BytesIO()
    picture.save(file, "JPEG", quality=88)
    return file.getvalue()


class Probe:
    """Small requests in a row: the longest of them shows for how long the reactor was held."""

    def __init__(self, server: HttpFiles) -> None:
        self.longest = 0.0
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        self._server.get("/_matrix/client/versions")
        while not self._ended.wait(PROBE_SECONDS):
            began = time.perf_counter()
            self._server.get("/_matrix/client/versions")
            self.longest = max(self.longest, time.perf_counter() - began)
