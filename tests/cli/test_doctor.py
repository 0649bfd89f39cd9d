"""`homeserver doctor`: the checks, and the suggested fixes."""

import json
import os
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from homeserver.cli.doctor.doctor import examine
from homeserver.cli.doctor.findings import Severity
from homeserver.cli.main import main
from homeserver.config.settings import Settings
from homeserver.storage.database.process_identity import this_process
from homeserver.storage.database.workers import claim_database
from homeserver.web.html import Pages
from homeserver.web.pages import WelcomePage
from tests.support.certificates import CertificateAuthority
from tests.support.postgres import drop_database, fresh_database


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each examination is of a folder of its own, where no server runs."""
    monkeypatch.chdir(tmp_path)


def findings(**settings: object) -> dict[str, list[str]]:
    """The doctor's findings about a configuration: lines by severity."""
    config = Path("homeserver.yaml")
    defaults = {"server_name": "example.org", "listeners": [{"port": 0}]}
    config.write_text(json.dumps(defaults | settings))
    result: dict[str, list[str]] = {severity.value: [] for severity in Severity}
    for finding in examine(config):
        result[finding.severity.value].append(str(finding))
    return result


def test_a_fresh_installation_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    """A new operator is not alarmed before the first start."""
    main(["init", "example.org"])
    capsys.readouterr()
    Path("homeserver.yaml").write_text("server_name: example.org\nlisteners: [{port: 0}]")

    status = main(["doctor"])

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert {line.split()[0] for line in lines} == {"ok"}


def test_a_wrong_configuration_is_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    """A script sees by the exit status that something must be done."""
    Path("homeserver.yaml").write_text("pool_size: 3")

    status = main(["doctor"])

    assert status == 1
    assert "did you mean database.pool_size?" in capsys.readouterr().out


def test_secrets_that_others_can_read_are_noticed() -> None:
    """The shared secret registers administrators."""
    found = findings(registration={"shared_secret": "swordfish"})

    assert any("chmod o-r homeserver.yaml" in line for line in found["warning"])


def test_a_signing_key_that_others_can_read_is_noticed() -> None:
    """An attacker with the key could send events as any local user."""
    main(["init", "example.org"])
    Path("data/signing.key").chmod(0o644)

    found = findings()

    assert any("chmod 600" in line for line in found["warning"])


def test_a_broken_signing_key_is_a_problem() -> None:
    """The server would not start."""
    Path("data").mkdir()
    Path("data/signing.key").write_text("nonsense")

    found = findings()

    assert any("restore it from a backup" in line for line in found["problem"])


def test_an_unavailable_database_is_a_problem() -> None:
    """The most frequent reason why a server does not start is named."""
    found = findings(database={"dsn": "host=/nowhere user=nobody password=swordfish"})

    assert any("database: cannot connect" in line for line in found["problem"])
    assert "swordfish" not in str(found)


def _hang_up_on_one(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    connection.close()


def test_a_port_that_another_program_holds_is_a_problem() -> None:
    """Two programs cannot listen in one place."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        threading.Thread(target=_hang_up_on_one, args=(other,), daemon=True).start()

        found = findings(listeners=[{"port": port, "bind": "127.0.0.1"}])

    expected = f"127.0.0.1:{port} is taken by another program, process {os.getpid()} ("
    assert any(expected in line for line in found["problem"]), found


class _Homeserver(BaseHTTPRequestHandler):
    """The landing page of a server of the name in `name`, or another homeserver implementation."""

    name: str | None = "example.org"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        page = '{"versions": ["v1.19"]}'
        if self.path == "/" and self.name is not None:
            welcome = WelcomePage(Pages(self.name), Settings()).welcome()
            page = bytes(welcome.body).decode()
        self.wfile.write(page.encode())

    def log_message(self, *args: object) -> None:
        """Say nothing in the middle of the test's output."""


def _findings_beside(server_name: str | None) -> dict[str, list[str]]:
    """The findings while a homeserver of this name uses the port."""
    kind = type("_Named", (_Homeserver,), {"name": server_name})
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        found = findings(listeners=[{"port": server.server_port, "bind": "127.0.0.1"}])
        server.shutdown()
        thread.join()
    return found


def test_a_port_where_this_server_responds_is_well() -> None:
    """The doctor can run while the server runs."""
    assert any("this server responds" in line for line in _findings_beside("example.org")["ok"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("other.example.org", "is taken by the homeserver other.example.org"),
        (None, "is taken by a homeserver that does not reveal its name"),
    ],
)
def test_a_port_where_another_homeserver_responds_is_a_problem(
    name: str | None, expected: str
) -> None:
    """Two servers cannot listen on one port, and a response is no sign of health."""
    assert any(expected in line for line in _findings_beside(name)["problem"])


def test_a_certificate_that_is_missing_is_a_problem() -> None:
    """A wrong path is found before clients find it."""
    tls = {"certificate": "tls.crt", "private_key": "tls.key"}

    found = findings(listeners=[{"port": 0, "tls": tls}])

    assert any("No such file" in line for line in found["problem"])


def test_a_private_key_with_a_passphrase_is_a_problem(tmp_path: Path) -> None:
    """The server does not start with it, and the doctor does not wait for a passphrase."""
    files = CertificateAuthority(tmp_path).issue()
    key = load_pem_private_key(files.private_key.read_bytes(), None)
    passphrase = BestAvailableEncryption(b"swordfish")
    files.private_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, passphrase))
    tls = {"certificate": str(files.certificate), "private_key": str(files.private_key)}

    found = findings(listeners=[{"port": 0, "tls": tls}])

    assert any(str(files.private_key) in line for line in found["problem"])


class _MailServer(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 mail.test\r\n")
        for line in self.rfile:
            self.wfile.write(b"221 Bye\r\n" if line.startswith(b"QUIT") else b"250 mail.test\r\n")
            if line.startswith(b"QUIT"):
                return


def _mail_findings(port: int, **more: object) -> dict[str, list[str]]:
    email = {"smtp_host": "127.0.0.1", "smtp_port": port, "from": "hs@example.org", **more}
    return findings(email=email, public_baseurl="http://localhost:8008", server_name="localhost")


def test_a_mail_server_that_answers_is_well() -> None:
    """Users get their mails."""
    with socketserver.TCPServer(("127.0.0.1", 0), _MailServer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()

        found = _mail_findings(server.server_address[1])

    assert any("answers, without encryption" in line for line in found["ok"])


def test_an_unavailable_mail_server_is_a_problem() -> None:
    """Users could not reset their password."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

    found = _mail_findings(port)

    assert any("correct email.smtp_host" in line for line in found["problem"])


def test_a_mail_server_without_the_required_encryption_is_a_problem() -> None:
    """The server would send nothing through it."""
    with socketserver.TCPServer(("127.0.0.1", 0), _MailServer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()

        found = _mail_findings(server.server_address[1], tls="required")

    assert any("STARTTLS" in line for line in found["problem"])


class TestDatabase:
    """Checks against a real database."""

    @pytest.fixture
    def dsn(self) -> object:
        dsn = fresh_database()
        yield dsn
        drop_database(dsn)

    def test_a_database_of_this_version_is_well(self, dsn: str) -> None:
        """All that the server needs of its database is there."""
        found = findings(database={"dsn": dsn})

        assert any("PostgreSQL" in line and "answers" in line for line in found["ok"])
        assert any("clock: agrees" in line for line in found["ok"])
        assert any("schema: up to date" in line for line in found["ok"])

    def test_wrong_auth_chains_are_repaired_on_request(
        self, dsn: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The doctor suggests a fix, and it works."""
        import psycopg

        with psycopg.connect(dsn) as connection:
            for event, cited in ((1, ""), (2, '"$1"')):
                json = f'{{"auth_events":[{cited}],"content":{{}}}}'.encode()
                connection.execute(
                    "INSERT INTO events (event, room, depth, type, sender, state_key, event_id,"
                    " json) VALUES (%s, 1, 1, 1, 1, 1, %s, %s)",
                    (event, f"${event}", json),
                )

        found = findings(database={"dsn": dsn})
        main(["doctor", "--repair"])
        repaired = capsys.readouterr().out

        assert any(" doctor --repair`" in line for line in found["problem"])
        assert "1 were wrong and were repaired" in repaired
        assert not findings(database={"dsn": dsn})["problem"]

    def test_partial_state_rooms_are_reported(self, dsn: str) -> None:
        """An operator learns why lists of members hang, and where to look."""
        import psycopg

        rows = "(1, '$a', '[]', NULL), (2, '$b', '[]', 7), (3, '$c', '[]', -1)"
        with psycopg.connect(dsn) as connection:
            connection.execute(f"INSERT INTO partial_rooms VALUES {rows}")

        found = findings(database={"dsn": dsn})

        assert any("partial rooms: the full state of 1 room" in line for line in found["warning"])

    def test_a_reader_that_is_far_behind_is_reported(self, dsn: str) -> None:
        """An operator learns that mentions, or events for other servers, are late."""
        import psycopg

        with psycopg.connect(dsn) as connection:
            connection.execute(
                "INSERT INTO events (event, room, position, depth, type, sender, event_id, json)"
                " SELECT n, 1, n, 1, 1, 1, '$' || n, '' FROM generate_series(1, 1500) AS n"
            )
            connection.execute(
                "INSERT INTO reader_positions VALUES ('mentions', -1, 100), ('sender', -1, 1400)"
            )

        found = findings(database={"dsn": dsn})

        behind = [line for line in found["warning"] if "has not handled" in line]
        assert len(behind) == 1
        assert "reader mentions: it has not handled the newest 1400 events" in behind[0]

    def test_the_process_that_uses_the_database_is_named(self, dsn: str) -> None:
        """An operator sees which process serves, and which one has ended without a clean stop."""
        import psycopg

        assert (
            "ok       process: no server uses the database" in findings(database={"dsn": dsn})["ok"]
        )
        claim_database(dsn, this_process())
        in_use = findings(database={"dsn": dsn})["ok"]
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE leases SET until = now() - interval '1 s'")
        ended = findings(database={"dsn": dsn})["warning"]

        assert any(f"the database is in use by process {os.getpid()} on" in line for line in in_use)
        assert any(f"the server ended early: process {os.getpid()} on" in line for line in ended)

    def test_a_database_of_another_server_is_a_problem(self, dsn: str) -> None:
        """Users of one server must not end up in another one."""
        import psycopg

        with psycopg.connect(dsn) as connection:
            connection.execute(
                "INSERT INTO server_state (key, value) VALUES ('server_name', 'example.com')"
            )

        found = findings(database={"dsn": dsn})

        assert any("belongs to the server example.com" in line for line in found["problem"])

    def test_a_database_of_a_newer_version_is_a_problem(self, dsn: str) -> None:
        """After a downgrade it is clear why the server does not start."""
        import psycopg

        with psycopg.connect(dsn) as connection:
            connection.execute(
                "INSERT INTO schema_migrations (number, name, checksum) VALUES (9999, 'x', 'x')"
            )

        found = findings(database={"dsn": dsn})

        assert any("a newer version of the server" in line for line in found["problem"])
