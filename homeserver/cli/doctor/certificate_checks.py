"""Checks of the certificate that the server obtains by itself: its state, and the way to port 80.

Spec: https://www.rfc-editor.org/rfc/rfc8555#section-8.3
"""

import http.client
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from homeserver.certificates.acme_folder import AcmeFolder
from homeserver.certificates.certified_keys import CertifiedKey
from homeserver.certificates.renewal_rules import Attempts, Subject, renewal_reason, renewed_at
from homeserver.cli.doctor.findings import Finding, ok, problem, warning
from homeserver.cli.doctor.network_checks import local_host, name_behind_challenges
from homeserver.config.errors import CertificateError
from homeserver.config.settings import Settings

HTTP_PORT = 80  # at which authorities check names


def check_acme(settings: Settings) -> Iterator[Finding]:
    """Check the certificate, the last attempt to renew it, and whether its names lead here."""
    if not settings.acme.enabled:
        return
    folder = AcmeFolder(settings.acme_dir)
    wanted = Subject(settings.acme.directory, frozenset(settings.acme_names))
    now = time.time()
    try:
        held = folder.load_certificate()
    except CertificateError as error:
        yield problem("certificate", str(error), "run this as the server's user")
        return
    yield _check_certificate(held, wanted, now)
    attempts = folder.load_attempts()
    if attempts.failures and attempts.subject == wanted:
        yield _describe_failure(attempts, held, now)
    if _runs_here(settings):
        for name in settings.acme_names:
            yield _check_name(name, settings.server_name)


def _check_certificate(held: CertifiedKey | None, wanted: Subject, now: float) -> Finding:
    reason = renewal_reason(None if held is None else held.validity, wanted, now)
    if held is None:
        names = ", ".join(sorted(wanted.names))
        return warning(
            "certificate", f"there is none yet for {names}", "run the server, which obtains it"
        )
    validity = held.validity
    text = (
        f"{', '.join(sorted(held.subject.names))}, by {held.issuer}, valid until"
        f" {_time(validity.ends)}"
    )
    if now >= validity.ends:
        return problem("certificate", f"{text}: it has expired", "run the server, which renews it")
    if reason is not None:
        return warning(
            "certificate", f"{text}; {reason}", "run the server, which obtains another one"
        )
    return ok("certificate", f"{text}; it is renewed at {_time(renewed_at(validity))}")


def _describe_failure(attempts: Attempts, held: CertifiedKey | None, now: float) -> Finding:
    text = (
        f"{attempts.failures} attempts to obtain it failed, the last one at"
        f" {_time(attempts.failed_at)}: {attempts.error}"
    )
    fix = (
        f"correct that; the next attempt is at {_time(attempts.retry_at)}, or a quarter of an hour"
        " after the last one if you send SIGHUP"
    )
    is_valid = held is not None and now < held.validity.ends
    return (warning if is_valid else problem)("certificate", text, fix)


def _runs_here(settings: Settings) -> bool:
    """Whether this server runs on this machine, and serves challenges."""
    for listener in settings.listeners:
        if "acme" in listener.resources and listener.port:
            host = local_host(listener.addresses[0])
            try:
                if name_behind_challenges(host, listener.port) == settings.server_name:
                    return True
            except (OSError, http.client.HTTPException):
                continue
    return False


def _check_name(name: str, server_name: str) -> Finding:
    subject = f"http://{name}/"
    try:
        found = name_behind_challenges(name, HTTP_PORT)
    except (OSError, http.client.HTTPException) as error:
        return warning(
            subject,
            f"cannot be reached from here: {error}",
            "let the name, at port 80, lead to this server: without it no certificate is issued."
            " Some routers only keep this machine itself from its public address",
        )
    if found != server_name:
        who = "a server that is not this one" if found is None else f"the homeserver {found}"
        return problem(
            subject,
            f"leads to {who}",
            "correct the addresses of the name, or remove it from acme.names",
        )
    return ok(subject, "leads to this server")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
