"""The process of an order: whatever it does, the server is not harmed."""

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread, Timer
from typing import Any

import pytest

from homeserver.certificates.acme_folder import AcmeFolder
from homeserver.certificates.certified_keys import new_key
from homeserver.certificates.challenges import Challenges
from homeserver.certificates.order_process import OrderCancelled, OrderFailed, Orders
from homeserver.certificates.renewal_rules import Subject
from homeserver.config.errors import CertificateError
from homeserver.config.sections.acme import AcmeSettings, ExternalAccount
from tests.certificates.authority import SUBJECT, issue
from tests.support.certificates import CertificateAuthority
from tests.support.program import CHECKOUT

READ = "import json, os, sys, time; order = json.loads(sys.stdin.readline())\n"
SAY = READ + "def say(**said): print(json.dumps(said), flush=True)\n"
CHALLENGE = "say(challenge={'token': 'abc', 'key_authorization': 'abc.def'})\n"


class Case:
    """Orders by a program that the test writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = AcmeFolder(folder / "acme")
        self.challenges = Challenges()
        self._program = folder / "program.py"

    def orders(self, program: str, *, seconds: int = 20, **settings: Any) -> Orders:
        self._program.write_text(program)
        return Orders(
            AcmeSettings(agree_to_terms=True, **settings),
            self.folder,
            self.challenges,
            program=self._program,
            seconds=seconds,
        )


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_the_order_has_all_that_is_needed_and_no_private_key_of_the_certificate(
    case: Case, tmp_path: Path
) -> None:
    """The program that reads what strangers send has nothing to lose but the account."""
    seen = tmp_path / "seen"
    program = SAY + (
        f"open({str(seen)!r}, 'w').write(json.dumps([order, sys.argv, dict(os.environ)]))\n"
        "say(error='enough', is_refusal=True)"
    )
    external = ExternalAccount(key_id="kid", hmac_key="c2VjcmV0")
    orders = case.orders(program, email="a@example.org", external_account=external)

    with pytest.raises(OrderFailed, match="enough"):
        orders.place(SUBJECT)

    order, arguments, environment = json.loads(seen.read_text())
    assert order["directory"] == SUBJECT.directory
    assert order["account_key"] == case.folder.account(SUBJECT.directory).key
    assert order["external_account"] == {"key_id": "kid", "hmac_key": "c2VjcmV0"}
    assert order["csr"].startswith("-----BEGIN CERTIFICATE REQUEST-----")
    assert str(order).count("PRIVATE KEY") == 2
    assert len(arguments) == 1
    assert set(environment) <= {"PATH", "LC_CTYPE"}


def test_a_registration_is_stored_before_the_order_continues(case: Case) -> None:
    """A crash later must not lead to a second account."""
    program = SAY + "say(account='https://ca/1'); sys.stdin.readline()\n"

    with pytest.raises(OrderFailed, match="it has ended"):
        case.orders(program).place(SUBJECT)

    assert case.folder.account(SUBJECT.directory).url == "https://ca/1"


def test_a_challenge_is_served_before_the_order_continues_and_not_after_its_end(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authority requests it at once."""
    program = SAY + CHALLENGE + "sys.stdin.readline(); say(error='end', is_refusal=True)"
    served = []
    clear = case.challenges.clear

    def ended() -> None:
        served.append(case.challenges.response("abc"))
        clear()

    monkeypatch.setattr(case.challenges, "clear", ended)
    with pytest.raises(OrderFailed):
        case.orders(program).place(SUBJECT)

    assert served == ["abc.def"]
    assert case.challenges.response("abc") is None


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise SystemExit", "failed"),
        (READ + "print('garbage', flush=True); time.sleep(60)", "failed"),
        (READ + "print('[]', flush=True); time.sleep(60)", "failed"),
        (READ + "print(3, flush=True); time.sleep(60)", "failed"),
        (SAY + "say(error=3, is_refusal=True)", "failed"),
        (SAY + "say(challenge={'token': 3})", "failed"),
        (SAY + "say(challenge={'token': 'a/b', 'key_authorization': 'a/b.c'})", "malformed"),
        (READ + "while True: sys.stdout.write('x' * 100_000)", "too long"),
        (SAY + "while True:\n say(account='x')\n sys.stdin.readline()", "does not end"),
    ],
)
def test_whatever_it_writes_the_order_fails(case: Case, program: str, reason: str) -> None:
    """A hostile authority could have taken it over."""
    begin = time.monotonic()

    with pytest.raises(OrderFailed, match=reason):
        case.orders(program).place(SUBJECT)

    assert time.monotonic() - begin < 15


@pytest.mark.parametrize(
    "program",
    [READ + "time.sleep(60)", SAY + "while True:\n say(account='x')\n time.sleep(0.3)"],
)
def test_it_has_a_time_limit(case: Case, program: str) -> None:
    """A server that never responds, or slowly, delays the renewal for minutes and no longer."""
    begin = time.monotonic()

    with pytest.raises(OrderFailed, match="no result within"):
        case.orders(program, seconds=1).place(SUBJECT)

    assert time.monotonic() - begin < 10


def test_a_stop_of_the_server_ends_it(case: Case) -> None:
    """And no other one begins."""
    orders = case.orders(READ + "time.sleep(60)")
    stop = Timer(0.5, orders.cancel)
    stop.start()

    for _ in range(2):
        with pytest.raises(OrderCancelled):
            orders.place(SUBJECT)
    stop.join()


def test_what_an_authority_says_fits_on_a_line(case: Case) -> None:
    """It would write lines of its own into the log otherwise, or move the cursor."""
    program = SAY + "say(error='a\\nERROR b\\x1b[2J' + 'x' * 9_999, is_refusal=False)"

    with pytest.raises(OrderFailed) as failed:
        case.orders(program).place(SUBJECT)

    text = str(failed.value)
    assert text.startswith("a ERROR b [2J")
    assert len(text) == 2_000
    assert not failed.value.is_refusal


def test_certificate_of_another_order_is_refused(case: Case) -> None:
    """Only the key of this order is used with it."""
    program = SAY + f"say(certificate={issue(new_key())!r})"

    with pytest.raises(CertificateError, match="another key"):
        case.orders(program).place(SUBJECT)


def test_an_authority_that_is_not_there_has_refused_nothing(tmp_path: Path) -> None:
    """The real program says so, within the limits that it sets itself."""
    settings = AcmeSettings(agree_to_terms=True, directory="https://127.0.0.1:1/")
    subject = Subject(settings.directory, SUBJECT.names)

    with pytest.raises(OrderFailed, match="cannot be reached") as failed:
        Orders(settings, AcmeFolder(tmp_path), Challenges()).place(subject)

    assert not failed.value.is_refusal


def test_the_server_does_not_load_what_the_program_needs() -> None:
    """It would take megabytes from then on."""
    code = (
        "import sys, homeserver.wiring.certificates\n"
        "print({'acme', 'josepy', 'requests'} & set(sys.modules))"
    )

    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )

    assert printed.stdout == "set()\n"


class HostileAuthority:
    """An ACME server that sends `head`, and `part` again and again, to each request."""

    def __init__(self, folder: Path, head: bytes, part: bytes, pause: float) -> None:
        authority = CertificateAuthority(folder)
        files = authority.issue()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files.certificate, files.private_key)
        self.ca_file = authority.path
        self._listening = context.wrap_socket(
            socket.create_server(("127.0.0.1", 0)), server_side=True
        )
        self.directory = f"https://127.0.0.1:{self._listening.getsockname()[1]}/dir"
        self._response = (head, part, pause)
        Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        head, part, pause = self._response
        while True:
            try:
                connection, _ = self._listening.accept()
            except ssl.SSLError:
                continue
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.recv(65_536)
                connection.sendall(head)
                while part:
                    connection.sendall(part)
                    time.sleep(pause)


@pytest.mark.parametrize(
    ("head", "part", "pause", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 1_048_576, 0.0, "sent too much|malloc"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" ", 0.2, "no result within"),
        (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", 0.0, "."),
        (b"\0\xff garbage", b"", 0.0, "cannot be reached"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"", 0.0, "unexpected"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull", b"", 0.0, "unexpected"),
        (
            (
                b"HTTP/1.1 200 OK\r\nReplay-Nonce: \xff\r\nContent-Length: 53\r\n\r\n"
                b'{"newNonce": 3, "newAccount": [], "newOrder": "file:"}'
            ),
            b"",
            0.0,
            ".",
        ),
    ],
)
def test_hostile_authority_costs_one_process(
    tmp_path: Path, head: bytes, part: bytes, pause: float, reason: str
) -> None:
    """Whatever it sends, the order fails within its limits, and with a sentence."""
    authority = HostileAuthority(tmp_path, head, part, pause)
    settings = AcmeSettings(
        agree_to_terms=True, directory=authority.directory, ca_file=authority.ca_file
    )
    subject = Subject(settings.directory, SUBJECT.names)
    seconds = 3 if pause else 12  # only the slow one is to use them up
    orders = Orders(settings, AcmeFolder(tmp_path / "acme"), Challenges(), seconds=seconds)
    try:
        with pytest.raises(OrderFailed, match=reason):
            orders.place(subject)
    finally:
        authority.close()
