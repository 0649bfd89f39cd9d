"""The renewal of a certificate: in time, never too often, and whatever fails the old one stays."""

import errno
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.certificates.acme_folder import AcmeFolder
from homeserver.certificates.certified_keys import CertifiedKey
from homeserver.certificates.order_process import OrderCancelled, OrderFailed
from homeserver.certificates.renewal import CHECK_SECONDS, CertificateRenewal
from homeserver.certificates.renewal_rules import Attempts, Subject
from homeserver.config.errors import CertificateError
from tests.certificates.authority import DAY, DIRECTORY, SUBJECT, obtain

START = 1_000 * DAY
MINUTE = 60.0


class Reactor(Clock):
    """A clock whose threads hand their results to the test."""

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = START
        self._results: Queue[tuple[Callable[..., None], tuple[Any, ...]]] = Queue()

    def callFromThread(self, function: Callable[..., None], *arguments: Any) -> None:
        self._results.put((function, arguments))

    def take_result(self) -> None:
        function, arguments = self._results.get(timeout=10)
        function(*arguments)


class FakeOrders:
    """Orders whose outcome the test decides; by default a certificate for ninety days."""

    def __init__(self, reactor: Reactor) -> None:
        self.placed: list[Subject] = []
        self.outcome: Any = None
        self.is_cancelled = False
        self._reactor = reactor

    def place(self, subject: Subject) -> CertifiedKey:
        self.placed.append(subject)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.outcome is not None:
            return self.outcome(subject)
        now = self._reactor.seconds()
        return obtain(subject, now, now + 90 * DAY)

    def cancel(self) -> None:
        self.is_cancelled = True


class Server:
    """What of a server renews its certificate. `start` again is a restart."""

    def __init__(self, path: Path) -> None:
        self.reactor = Reactor()
        self.orders = FakeOrders(self.reactor)
        self.folder = AcmeFolder(path)
        self.renewal: Any = None

    def start(self, subject: Subject = SUBJECT) -> None:
        self.renewal = CertificateRenewal(self.reactor, subject, self.folder, self.orders)
        self.renewal.start()
        self.settle()

    def crash(self) -> None:
        """End without a word."""
        self.renewal._checking.stop()

    def settle(self) -> None:
        while self.renewal._checking._is_running:
            self.reactor.take_result()

    def wait(self, seconds: float, step: float = CHECK_SECONDS) -> None:
        end = self.reactor.seconds() + seconds
        while self.reactor.seconds() < end:
            self.reactor.advance(min(step, end - self.reactor.seconds()))
            self.settle()

    @property
    def serial_number(self) -> int:
        """That of the certificate which a new connection gets."""
        return int(self.renewal.tls.getContext().get_certificate().serial_number)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path / "acme")


@pytest.fixture(autouse=True)
def _certificates_of_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts say which certificate they have."""
    from homeserver.web import tls

    original = tls._context_of

    def context_of(chain: Any, key: Any) -> Any:
        original(chain, key)  # raises if it cannot be used
        return type("Context", (), {"get_certificate": lambda _: chain[0]})()

    monkeypatch.setattr(tls, "_context_of", context_of)


def test_the_first_start_orders_at_once(server: Server) -> None:
    """Until then a self-signed certificate is used; afterwards the stored one, by a restart too."""
    server.start()
    first = server.serial_number

    server.start()

    assert server.orders.placed == [SUBJECT]
    assert server.serial_number == first
    assert server.renewal.seconds_left == 90 * DAY


def test_renewed_after_two_thirds_of_its_lifetime(server: Server) -> None:
    """Nobody has to think of it."""
    server.start()
    first = server.serial_number

    server.wait(60 * DAY - 60, step=6 * 3_600)
    assert len(server.orders.placed) == 1
    server.wait(2 * MINUTE)

    assert len(server.orders.placed) == 2
    assert server.serial_number != first
    assert server.renewal.seconds_left > 89 * DAY


@pytest.mark.parametrize(
    "error",
    [
        OrderFailed("m.example.org: no such name"),
        CertificateError("the certificate is for another key"),
        OSError(errno.ENOSPC, "full"),
    ],
)
def test_after_a_failure_the_old_one_stays_and_attempts_are_few(
    server: Server, error: Exception
) -> None:
    """The authority would refuse everything after five failures an hour."""
    server.start()
    first = server.serial_number
    server.orders.outcome = error

    server.wait(61 * DAY, step=3_600)
    orders = len(server.orders.placed)
    server.wait(DAY, step=MINUTE)

    assert server.serial_number == first
    assert len(server.orders.placed) - orders <= 2
    assert server.renewal.failures >= 5
    assert str(error) == server.folder.load_attempts().error


def test_pauses_survive_a_restart(server: Server) -> None:
    """A supervisor that starts the server again and again does not hammer the authority."""
    server.orders.outcome = OrderFailed("refused")
    for _ in range(20):
        server.start()
        server.crash()
        server.wait(10)

    assert len(server.orders.placed) == 1
    server.start()
    server.wait(15 * MINUTE)
    assert len(server.orders.placed) == 2


def test_a_crash_in_the_middle_of_an_order_counts_as_a_failure(server: Server) -> None:
    """The order may be the reason of the crash."""
    seen: list[Attempts] = []

    def crash(_: Subject) -> CertifiedKey:
        seen.append(server.folder.load_attempts())
        raise OrderCancelled

    server.orders.outcome = crash
    server.start()

    assert [each.failures for each in seen] == [1]
    assert not seen[0].may_try(SUBJECT, START + 14 * MINUTE)


def test_a_stop_in_the_middle_of_an_order_does_not(server: Server) -> None:
    """An operator who restarts the server waits for nothing."""
    server.orders.outcome = OrderCancelled()
    server.start()
    stopped = Deferred.fromCoroutine(server.renewal.stop())

    assert stopped.called
    assert server.orders.is_cancelled
    assert server.folder.load_attempts() == Attempts()


def test_an_authority_that_cannot_be_reached_is_tried_a_minute_later(server: Server) -> None:
    """The machine starts before its network."""
    server.orders.outcome = OrderFailed("away", is_refusal=False)
    server.start()
    server.orders.outcome = None

    server.wait(MINUTE + CHECK_SECONDS)

    assert len(server.orders.placed) == 2
    assert server.folder.load_attempts() == Attempts()


def test_sighup_shortens_the_pause_to_the_first_one(server: Server) -> None:
    """The operator has opened the port, and need not wait for a day."""
    server.orders.outcome = OrderFailed("refused")
    server.start()
    server.wait(2 * DAY, step=MINUTE)
    server.renewal.reload()
    orders, server.orders.outcome = len(server.orders.placed), None

    server.wait(16 * MINUTE)

    assert len(server.orders.placed) == orders + 1
    assert server.renewal.seconds_left > 0


def test_sighup_reads_what_was_restored(server: Server) -> None:
    """As it does with certificates of files."""
    server.start()
    other = obtain(SUBJECT, START, START + 80 * DAY)

    server.folder.save_certificate(other)
    server.renewal.reload()

    assert server.serial_number == other.chain[0].serial_number


def test_other_names_are_ordered_at_once(server: Server) -> None:
    """The old certificate is used meanwhile: most clients still accept it."""
    server.start()
    other = Subject(DIRECTORY, frozenset({"example.org"}))
    server.orders.outcome = OrderFailed("refused")
    first = server.serial_number

    server.start(other)

    assert server.orders.placed == [SUBJECT, other]
    assert server.serial_number == first


def test_an_expired_certificate_stays_in_use(server: Server) -> None:
    """Clients say what is wrong, and one with a wrong clock works."""
    server.folder.save_certificate(old := obtain(SUBJECT, START - 90 * DAY, START - DAY))
    server.orders.outcome = OrderFailed("refused")

    server.start()

    assert server.serial_number == old.chain[0].serial_number
    assert server.renewal.seconds_left == -DAY


def test_a_damaged_file_is_replaced(server: Server) -> None:
    """A server that has lost its certificate orders another one."""
    server.start()
    server.folder.certificate_path.write_text("garbage")

    server.start()

    assert len(server.orders.placed) == 2
    assert server.folder.load_certificate() is not None


def test_a_clock_that_is_wrong_by_years_leads_to_few_orders(server: Server) -> None:
    """Each new certificate seems to have expired, and authorities count those, too."""
    server.orders.outcome = lambda subject: obtain(subject, 0, 90 * DAY)

    server.start()
    server.wait(DAY, step=MINUTE)

    assert len(server.orders.placed) <= 8
    held = server.folder.load_certificate()
    assert held is not None
    assert server.serial_number == held.chain[0].serial_number
    assert "Is the clock right?" in server.folder.load_attempts().error


def test_a_certificate_that_cannot_be_stored_is_used_and_stored_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full; the authority need not issue it again."""
    save = server.folder.save_certificate

    def full(_: CertifiedKey) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(server.folder, "save_certificate", full)
    server.start()
    server.wait(5 * MINUTE)
    assert server.renewal.seconds_left > 0
    assert server.folder.load_certificate() is None

    monkeypatch.setattr(server.folder, "save_certificate", save)
    server.wait(MINUTE)

    assert server.folder.load_certificate() is not None
    assert len(server.orders.placed) == 1


def test_nothing_is_ordered_where_nothing_can_be_stored(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause after a failure would be lost by a restart."""

    def full(_: Attempts) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(server.folder, "save_attempts", full)

    server.start()
    server.wait(10 * MINUTE)

    assert server.orders.placed == []
    assert server.renewal.failures == 1
