"""The doctor's check of the pages of accounts."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from homeserver.cli.doctor import page_checks
from homeserver.cli.doctor.findings import Severity
from homeserver.cli.doctor.page_checks import check_pages
from homeserver.config.sections.oauth import OAuthSettings
from homeserver.config.settings import Settings

PAGE = '<html><meta name="matrix-server" content="example.org">'
COOKIE = "homeserver_form=x; Path=/_matrix/"


def severities(url: str, *, is_enabled: bool = True) -> list[Severity]:
    """What the doctor says of the pages at an address."""
    oauth = OAuthSettings(enabled=is_enabled)
    settings = Settings(server_name="example.org", public_baseurl=url, oauth=oauth)
    return [finding.severity for finding in check_pages(settings)]


@contextmanager
def web_server(status: int, text: str, cookie: str) -> Iterator[str]:
    """A web server with one response, at this address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/chat/_matrix/account/sign_in"
            self.send_response(status)
            if cookie:
                self.send_header("Set-Cookie", cookie)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/chat"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "text", "cookie", "expected"),
    [
        (200, PAGE, COOKIE, Severity.OK),
        (200, PAGE, "", Severity.PROBLEM),
        (200, PAGE.replace("example.org", "other.example"), COOKIE, Severity.PROBLEM),
        (404, "<html>nginx", "", Severity.PROBLEM),
    ],
)
def test_the_page_and_its_cookie_come_through_the_proxy(
    status: int, text: str, cookie: str, expected: Severity
) -> None:
    """An operator learns it before the first user does."""
    with web_server(status, text, cookie) as url:
        assert severities(url) == [expected]


def test_a_server_that_is_stopped_is_a_warning() -> None:
    """The doctor runs before the first start, too."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))

        assert severities(f"http://127.0.0.1:{closed.getsockname()[1]}") == [Severity.WARNING]


def test_passwords_without_encryption_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody on the way could read them."""

    def get(url: str) -> tuple[int, list[str], str]:
        return 200, [COOKIE], PAGE

    monkeypatch.setattr(page_checks, "_get", get)

    assert severities("http://matrix.example.org") == [Severity.PROBLEM, Severity.OK]
    assert severities("https://matrix.example.org") == [Severity.OK]


def test_pages_that_are_not_enabled_are_not_checked() -> None:
    """Most servers have none."""
    assert severities("http://127.0.0.1:1", is_enabled=False) == []
