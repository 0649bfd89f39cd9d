"""URL previews: of pages that must be fetched, of stored ones, and what hostile pages cost others.

The web server is in the process of the load. All its pages have a picture of their own, so that a
preview is two requests, two jobs of a parser, a file and two rows.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import quote

from PIL import Image

from benchmarks.load.figures import Figure
from benchmarks.load.population import Population
from benchmarks.load.processes import cpu_seconds
from benchmarks.media.transfers import HttpFiles, Memory, Probe

OVERRIDES = {
    "log": {"level": "WARN"},
    "rate_limits": {"enabled": False},
    "outbound_http": {"allow_private_addresses": True},
    "url_previews": {"enabled": True, "ports": []},
}
PREVIEW = "/_matrix/client/v1/media/preview_url?url="
PAGES = 400
HOSTILE = 8
STORED = 10_000  # requests
AT_A_TIME = 8
QUIET_SECONDS = 8.0
HOSTS = 8  # of which each gets a few requests at a time
PAGE_SIZE = 150_000  # bytes
HOSTILE_SIZE = 2_097_152
MEBIBYTE = 1_048_576


def measure(population: Population, size: float) -> list[Figure]:
    """All figures; `size` scales the number of pages."""
    count = max(AT_A_TIME, int(PAGES * size))
    server = HttpFiles(population.server.port, population.accounts(AT_A_TIME))
    pids = population.server.process_ids()
    with web_server() as port:
        server.get(preview_of(port, 0, "/page/first"))
        cpu, began = cpu_seconds(pids), time.perf_counter()
        fetch(server, [preview_of(port, number, f"/page/{number}") for number in range(count)])
        elapsed, cpu = time.perf_counter() - began, cpu_seconds(pids) - cpu
        stored = time_stored(server, preview_of(port, 0, "/page/0"), int(STORED * size))
        with Probe(server) as before:
            time.sleep(QUIET_SECONDS)
        with Memory(population.server.pid) as memory, Probe(server) as probe:
            fetch(
                server,
                [preview_of(port, number, f"/hostile/{number}") for number in range(HOSTILE)],
            )
        grown = memory.grown() / MEBIBYTE
    return [
        Figure("previews with a picture, fetched", count / elapsed, "/s"),
        Figure("one of them, CPU without the parsers", cpu / count * 1_000, "ms"),
        Figure("stored previews", stored, "/s"),
        Figure(
            "the longest other request while hostile pages are read",
            probe.longest * 1_000,
            "ms",
            note=f"before: {before.longest * 1_000:.0f} ms",
        ),
        Figure("memory of the server meanwhile", grown, "MiB", 120, at_most=True),
    ]


def preview_of(port: int, number: int, path: str) -> str:
    """The path of a request for the preview of a page, on one of several hosts."""
    return PREVIEW + quote(f"http://127.0.2.{number % HOSTS + 1}:{port}{path}", safe="")


def fetch(server: HttpFiles, paths: list[str]) -> None:
    """Request all paths, some at a time; pages of which there is no preview are expected."""
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        list(threads.map(lambda path: get_anyway(server, path), paths))


def get_anyway(server: HttpFiles, path: str) -> None:
    """Request a path, whatever the response is."""
    try:
        server.get(path)
    except AssertionError:
        if "hostile" not in path:
            raise


def time_stored(server: HttpFiles, path: str, count: int) -> float:
    """The rate of requests for one stored preview."""
    began = time.perf_counter()
    fetch(server, [path] * count)
    return count / (time.perf_counter() - began)


@contextmanager
def web_server() -> Iterator[int]:
    """A web server on all addresses of this machine; its port."""
    server = ThreadingHTTPServer(("0.0.0.0", 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Pages(BaseHTTPRequestHandler):
    """Pages, their pictures, and pages that a parser does not finish."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Respond."""
        if self.path.startswith("/picture"):
            self._send("image/jpeg", PICTURE + self.path.encode())
        elif self.path.startswith("/hostile"):
            self._send("text/html", HOSTILE_PAGE)
        else:
            picture = f'<meta property="og:image" content="/picture{self.path}">'
            self._send("text/html", PAGE % picture.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is Python's
        """Say nothing."""

    def _send(self, content_type: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _picture() -> bytes:
    file = BytesIO()
    Image.effect_noise((800, 600), 60).save(file, "JPEG")
    return file.getvalue()


PICTURE = _picture()
PAGE = (
    b'<html><head><meta property="og:title" content="A page">%s</head><body>'
    + b"<div class='a'><p>Some <b>text</b> of a page.</p></div>" * (PAGE_SIZE // 50)
)
HOSTILE_PAGE = b"<a " + b" ".join(b"a%d=1" % number for number in range(HOSTILE_SIZE // 10)) + b">"
