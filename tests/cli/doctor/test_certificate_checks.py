"""What the doctor says of the certificate that the server obtains by itself."""

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from homeserver.certificates.acme_folder import AcmeFolder
from homeserver.certificates.challenges import PROBE_PATH
from homeserver.certificates.renewal_rules import Attempts, Subject
from homeserver.cli.doctor import certificate_checks
from homeserver.cli.doctor.certificate_checks import check_acme
from homeserver.cli.doctor.findings import Finding, Severity
from homeserver.config.sections.acme import AcmeSettings
from homeserver.config.sections.listeners import Listener, Tls
from homeserver.config.settings import Settings
from tests.certificates.authority import DAY, obtain


class Case:
    """A server named localhost, whose port 80 is one of the test."""

    def __init__(self, folder: Path, port: int) -> None:
        self.settings = Settings(
            server_name="localhost",
            data_dir=folder,
            acme=AcmeSettings(agree_to_terms=True),
            listeners=(
                Listener(port=443, tls=Tls(acme=True)),
                Listener(port=port, bind="127.0.0.1", resources=("acme",)),
            ),
        )
        self.folder = AcmeFolder(self.settings.acme_dir)
        self.subject = Subject(self.settings.acme.directory, frozenset({"localhost"}))

    def store(self, days_left: float, subject: Subject | None = None) -> None:
        """Store a certificate for ninety days."""
        ends = time.time() + days_left * DAY
        self.folder.save_certificate(obtain(subject or self.subject, ends - 90 * DAY, ends))

    def findings(self) -> list[Finding]:
        return list(check_acme(self.settings))


class Responder(BaseHTTPRequestHandler):
    """Another program, or the server of a name."""

    name: str | None = "localhost"

    def do_GET(self) -> None:
        body = b"hello"
        if self.name is not None and self.path == PROBE_PATH:
            body = json.dumps({"server_name": self.name}).encode()
        self.send_response(404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path, 1)


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    """The server runs, and its name leads to it."""
    with HTTPServer(("127.0.0.1", 0), Responder) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        monkeypatch.setattr(certificate_checks, "HTTP_PORT", http.server_port)
        yield Case(tmp_path, http.server_port)
        http.shutdown()


def test_nothing_is_said_where_it_is_not_used() -> None:
    """Most servers are behind a proxy."""
    assert list(check_acme(Settings())) == []


def test_good_certificate_is_described(case: Case) -> None:
    """For which names, by whom, and until when."""
    case.store(60)

    [found] = case.findings()

    assert found.severity is Severity.OK
    assert found.text.startswith("localhost, by CN=Authority, valid until 20")


def test_missing_certificate_is_no_problem_before_the_first_start(case: Case) -> None:
    """It is the server that obtains it."""
    [found] = case.findings()

    assert (found.severity, found.fix) == (Severity.WARNING, "run the server, which obtains it")


@pytest.mark.parametrize(
    ("days_left", "severity", "word"),
    [(-1, Severity.PROBLEM, "has expired"), (10, Severity.WARNING, "expires soon")],
)
def test_old_certificate_is_named(
    case: Case, days_left: float, severity: Severity, word: str
) -> None:
    """Clients refuse it now, or soon."""
    case.store(days_left)

    [found] = case.findings()

    assert found.severity is severity
    assert word in found.text


@pytest.mark.parametrize(
    ("days_left", "severity"), [(10, Severity.WARNING), (-1, Severity.PROBLEM)]
)
def test_last_failure_is_shown(case: Case, days_left: float, severity: Severity) -> None:
    """With the words of the authority, and the time of the next attempt."""
    case.store(days_left)
    now = time.time()
    case.folder.save_attempts(Attempts().failed(case.subject, now, "no such name"))

    _, failure = case.findings()

    assert failure.severity is severity
    assert "no such name" in failure.text
    assert "the next attempt is at 20" in failure.fix


def test_unreadable_certificate_is_a_problem(case: Case) -> None:
    """The doctor was started by another user, for one."""
    case.folder.certificate_path.parent.mkdir(parents=True)
    case.folder.certificate_path.write_text("garbage")

    [found] = case.findings()

    assert found.severity is Severity.PROBLEM


def test_name_that_leads_here_is_found(running: Case) -> None:
    """At port 80, where the authority will look."""
    running.store(60)

    assert [str(each.severity.value) for each in running.findings()] == ["ok", "ok"]


def test_name_that_leads_elsewhere_is_a_problem(
    running: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No certificate will be issued for it."""
    running.store(60)
    with HTTPServer(("127.0.0.1", 0), type("Other", (Responder,), {"name": None})) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        monkeypatch.setattr(certificate_checks, "HTTP_PORT", other.server_port)

        _, found = running.findings()
        other.shutdown()

    assert found.severity is Severity.PROBLEM
    assert found.text == "leads to a server that is not this one"


def test_name_that_does_not_respond_is_a_warning(
    running: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authority may reach it all the same: some routers do not lead back."""
    running.store(60)
    monkeypatch.setattr(certificate_checks, "HTTP_PORT", 1)

    _, found = running.findings()

    assert found.severity is Severity.WARNING
    assert "cannot be reached from here" in found.text
