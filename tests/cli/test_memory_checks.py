"""What `homeserver doctor` says of the memory of a running server."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from homeserver.cli.doctor.memory_checks import check_memory
from homeserver.config.sections.listeners import Listener
from homeserver.config.settings import Settings
from tests.support.program import free_port

METRICS = b"""\
homeserver_cache_bytes{cache="events"} 5.24288e+06
homeserver_cache_bytes{cache="names"} 1048576.0
homeserver_cache_size{cache="names"} 99.0
homeserver_memory_at_start_bytes 9.43718400e+07
process_resident_memory_bytes 1.048576e+08
"""


class Scraped(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(METRICS)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Scraped)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def settings(port: int, *resources: str) -> Settings:
    listener = Listener(port=port, bind=["127.0.0.1"], resources=list(resources))  # type: ignore[arg-type]
    return Settings(listeners=[listener])


def test_the_largest_caches_of_a_running_server_are_named(port: int) -> None:
    """An operator whose machine is small knows which limit to lower."""
    (finding,) = check_memory(settings(port, "metrics"))

    assert str(finding) == (
        "ok       memory: 100.0 MiB: 90.0 MiB from the start, mostly code; since then 10.0 MiB, "
        "of which about 6.0 MiB in caches: "
        "events 5.0 MiB, names 1.0 MiB"
    )


def test_nothing_is_said_where_there_are_no_metrics(port: int) -> None:
    """Neither without a listener for them, nor while the server does not run."""
    assert list(check_memory(settings(port, "client"))) == []
    assert list(check_memory(settings(free_port(), "metrics"))) == []
