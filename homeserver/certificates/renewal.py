"""The certificate of this server: used from the start on, and renewed in time.

Now and then the present certificate is compared with what is wanted (`renewal_rules.py`). If
another one is needed, a thread orders it; new connections get it at once, and open ones continue.
Until the first one is there, a self-signed one is used, so that the server starts at once. A
certificate that has expired stays in use: clients then say what is wrong.
"""

from collections.abc import Awaitable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.certificates.acme_folder import AcmeFolder
from homeserver.certificates.certified_keys import CertifiedKey, self_signed
from homeserver.certificates.order_process import OrderCancelled, OrderFailed
from homeserver.certificates.renewal_rules import Attempts, Subject, renewal_reason
from homeserver.concurrency.clock import wall_seconds
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.concurrency.thread_pools import run_in_own_thread
from homeserver.config.errors import CertificateError
from homeserver.web.tls import ReplaceableCertificate

CHECK_SECONDS = 20.0  # it costs nothing but a comparison
log = Logger()


class PlacesOrders(Protocol):
    """Who obtains certificates."""

    def place(self, subject: Subject) -> CertifiedKey: ...

    def cancel(self) -> None: ...


class CertificateRenewal:
    """The certificate in use, `tls` for listeners.

    `failures` counts the orders that failed since the start. Raises `CertificateError` if OpenSSL
    refuses what is stored.
    """

    def __init__(
        self, reactor: Any, subject: Subject, folder: AcmeFolder, orders: PlacesOrders
    ) -> None:
        self.failures = 0
        self._reactor = reactor
        self._subject = subject
        self._folder = folder
        self._orders = orders
        self._attempts = folder.load_attempts()
        self._held = _load(folder)
        self._is_saved = True
        in_use = self._held or self_signed(subject, wall_seconds(reactor))
        self.tls = ReplaceableCertificate(in_use.chain, in_use.key)
        self._checking = PeriodicTask(
            reactor, CHECK_SECONDS, self._check, name="the renewal of the certificate"
        )

    @property
    def seconds_left(self) -> float:
        """The time until the certificate expires: negative afterwards, 0 if there is none yet."""
        if self._held is None:
            return 0.0
        return self._held.validity.ends - wall_seconds(self._reactor)

    def start(self) -> None:
        """Say which certificate is in use, and renew it from now on, at once if necessary."""
        names = ", ".join(sorted(self._subject.names))
        if self._held is None:
            log.warn(
                "there is no certificate for {names} yet: clients refuse the self-signed one that"
                " is used until {directory} has issued one",
                names=names,
                directory=self._subject.directory,
            )
        elif self.seconds_left <= 0:
            log.error("the certificate for {names} has expired: clients refuse it", names=names)
        self._say_when()
        self._checking.start(now=True)

    async def stop(self) -> None:
        """End an order in progress."""
        stopped = self._checking.stop()
        self._orders.cancel()
        await stopped

    def reload(self) -> None:
        """Read the stored certificate again; an attempt that waits after failures comes sooner."""
        self._attempts = self._attempts.hastened()
        held = _load(self._folder)
        if held is not None and self._is_saved:
            self._use(held)

    def _say_when(self) -> None:
        now = wall_seconds(self._reactor)
        reason = renewal_reason(self._validity, self._subject, now)
        if reason is not None and not self._attempts.may_try(self._subject, now):
            log.warn(
                "the next attempt to obtain a certificate is in {minutes} minutes, as the last one"
                " failed: {error}",
                minutes=round((self._attempts.retry_at - now) / 60),
                error=self._attempts.error,
            )

    @property
    def _validity(self) -> Any:
        return None if self._held is None else self._held.validity

    def _check(self) -> Awaitable[None] | None:
        now = wall_seconds(self._reactor)
        if not self._is_saved:
            return self._save_again()
        reason = renewal_reason(self._validity, self._subject, now)
        if reason is None or not self._attempts.may_try(self._subject, now):
            return None
        return self._renew(reason, now)

    async def _renew(self, reason: str, now: float) -> None:
        names = ", ".join(sorted(self._subject.names))
        directory = self._subject.directory
        log.info(
            "ordering a certificate for {names} from {directory}: {reason}",
            names=names,
            directory=directory,
            reason=reason,
        )
        before = self._attempts
        try:
            # It counts as failed from now on: a crash must not lead to an order at each start.
            begun = before.failed(self._subject, now, "the server ended during the order")
            await self._in_thread(self._folder.save_attempts, begun)
            self._attempts = begun
            obtained = await self._in_thread(self._orders.place, self._subject)
        except OrderCancelled:
            await self._in_thread(self._folder.save_attempts, before)
        except (OrderFailed, CertificateError, OSError) as error:
            is_refusal = not isinstance(error, OrderFailed) or error.is_refusal
            await self._failed(before, str(error), is_refusal=is_refusal)
        else:
            await self._obtained(before, obtained)

    async def _obtained(self, before: Attempts, obtained: CertifiedKey) -> None:
        if not self._use(obtained):
            await self._failed(before, "OpenSSL refuses the certificate")
            return
        try:
            await self._in_thread(self._folder.save_certificate, obtained)
        except OSError as error:
            self._is_saved = False
            log.error("the new certificate is in use, but cannot be stored: {error}", error=error)
        now = wall_seconds(self._reactor)
        if reason := renewal_reason(self._validity, self._subject, now):
            # By this server's clock it is no better than the one before. It would be ordered again
            # and again.
            await self._failed(
                before, f"there is a new certificate, but: {reason}. Is the clock right?"
            )
            return
        await self._record(Attempts())

    async def _save_again(self) -> None:
        """Store what is only in memory, because the disk was full, for one."""
        assert self._held is not None, "it could not be stored"
        await self._in_thread(self._folder.save_certificate, self._held)
        self._is_saved = True

    async def _failed(self, before: Attempts, error: str, *, is_refusal: bool = True) -> None:
        self.failures += 1
        now = wall_seconds(self._reactor)
        attempts = before.failed(self._subject, now, error, is_refusal=is_refusal)
        log.error(
            "no certificate for {names}: {error}. The next attempt is in {minutes} minutes",
            names=", ".join(sorted(self._subject.names)),
            error=error,
            minutes=round((attempts.retry_at - now) / 60),
        )
        await self._record(attempts)

    async def _record(self, attempts: Attempts) -> None:
        self._attempts = attempts
        try:
            await self._in_thread(self._folder.save_attempts, attempts)
        except OSError as error:
            log.error("the outcome of the order cannot be stored: {error}", error=error)

    def _use(self, certificate: CertifiedKey) -> bool:
        """Use a certificate for new connections; false if it cannot be used."""
        try:
            self.tls.replace(certificate.chain, certificate.key)
        except CertificateError as error:
            log.error("the old certificate stays in use: {error}", error=error)
            return False
        self._held = certificate
        log.info(
            "the certificate for {names} by {issuer} is in use, for {days:.1f} days",
            names=", ".join(sorted(certificate.subject.names)),
            issuer=certificate.issuer,
            days=self.seconds_left / 86_400,
        )
        return True

    def _in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        return run_in_own_thread(self._reactor, "certificate", function, *arguments)


def _load(folder: AcmeFolder) -> CertifiedKey | None:
    try:
        return folder.load_certificate()
    except CertificateError as error:
        log.error("the stored certificate is lost: {error}", error=error)
        return None
