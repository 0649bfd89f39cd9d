"""A real browser, Chromium without a window, that shows one page of a test.

The page is bundled from `../js/browser`, and has another origin than the homeserver, as web clients
do. Its result is what it posts to `/result`.
"""

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any
from urllib.parse import urlencode

from tests.clients.node import FOLDER

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MODULES = FOLDER / "node_modules"
ESBUILD = MODULES / ".bin" / "esbuild"
WASM = MODULES / "@matrix-org" / "matrix-sdk-crypto-wasm" / "pkg"
WORKER = FOLDER / "browser" / "worker.js"
HTML = '<!doctype html><meta charset="utf-8"><script type="module" src="/page.js"></script>'
# It asks nothing of its maker's servers, and takes the certificates of the test's authority.
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
    "--ignore-certificate-errors",
    "--enable-logging=stderr",
)


class Page:
    """An open page."""

    def __init__(self, results: "Queue[Any]", log: Path) -> None:
        self._results = results
        self._log = log

    async def result(self, seconds: float) -> Any:
        """What it posts; fails with the log of the browser if nothing comes."""
        try:
            result = await asyncio.to_thread(self._results.get, timeout=seconds)
        except Empty:
            result = {"error": "nothing was posted"}
        assert "error" not in result, f"{result}\n{self._log.read_text(errors='replace')}"
        return result


@contextmanager
def open_page(program: str, **query: str) -> Iterator[Page]:
    """Open a page that runs a program of `../js`, with this query in its address."""
    results: Queue[Any] = Queue()
    with tempfile.TemporaryDirectory(prefix="page-") as name:
        folder = Path(name)
        _bundle(program, folder / "site")
        with _served(folder / "site", results) as url, (folder / "log").open("wb") as log:
            profile = f"--user-data-dir={folder / 'profile'}"
            browser = subprocess.Popen(
                [str(CHROMIUM), *OPTIONS, profile, f"{url}/?{urlencode(query)}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            try:
                yield Page(results, folder / "log")
            finally:
                browser.terminate()
                browser.wait()


def _bundle(program: str, site: Path) -> None:
    (site / "pkg").mkdir(parents=True)
    (site / "index.html").write_text(HTML)
    for wasm in WASM.glob("*.wasm"):
        shutil.copy(wasm, site / "pkg")
    shutil.copy(WORKER, site)
    command = [ESBUILD, program, "--bundle", "--format=esm", f"--outfile={site / 'page.js'}"]
    subprocess.run(command, cwd=FOLDER, check=True, capture_output=True)


@contextmanager
def _served(site: Path, results: "Queue[Any]") -> Iterator[str]:
    handler = partial(_Handler, results, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {".js": "text/javascript", ".wasm": "application/wasm"}  # noqa: RUF012

    def __init__(self, results: "Queue[Any]", *arguments: Any, **options: Any) -> None:
        self._results = results
        super().__init__(*arguments, **options)

    def do_POST(self) -> None:
        """Take the result of the page."""
        length = int(self.headers["Content-Length"])
        self._results.put(json.loads(self.rfile.read(length)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""
