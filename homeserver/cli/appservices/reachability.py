"""Whether an application service can be reached, and if not, why and what to do.

The requests are sent by the command itself, so this works without a running server. One that does
not know pings gets a transaction without events, which has no effect.

Spec: https://spec.matrix.org/v1.19/application-service-api/#pinging
"""

import secrets
from collections.abc import Iterator
from typing import Any

import msgspec
from OpenSSL import SSL
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import DNSLookupError
from twisted.python.failure import Failure

from appservices.requests.appservice_client import (
    APP,
    UNKNOWN_ENDPOINT,
    AppserviceClient,
    is_success,
)
from homeserver.cli.plain_text import plain
from homeserver.config.settings import Settings
from homeserver.outbound.client_tls import WrongCertificate
from homeserver.outbound.http_client import OutboundError, OutboundResponse, OutboundTimeout
from homeserver.protocol.appservices.appservice import Appservice

TIMEOUT_SECONDS = 10.0
MAX_SHOWN = 200  # characters of a body

START_IT = (
    "start the application service, or correct `url` in its registration; in a container, 127.0.0.1"
    " is the container itself"
)
SAME_FILE = (
    "its hs_token differs: have both read the same registration file, restart the application"
    " service, and have this server read the file again (SIGHUP)"
)
NO_TLS = "use http:// in `url` if it has no TLS"
ANOTHER_PROGRAM = "something else listens there: correct `url` in its registration"


class PingOutcome(msgspec.Struct, frozen=True):
    """Whether an application service was reached; `fix` says what to do if it was not."""

    is_reached: bool
    text: str
    fix: str = ""


class Reachability:
    """Checks application services. `await stop()` at the end."""

    def __init__(self, reactor: Any, settings: Settings) -> None:
        self._reactor = reactor
        self._client = AppserviceClient(reactor, settings.outbound_http)

    async def stop(self) -> None:
        """Close all connections."""
        await self._client.stop()

    async def check(self, appservice: Appservice) -> PingOutcome:
        """Ping an application service."""
        if appservice.url is None:
            return PingOutcome(
                is_reached=True, text="it has no url, so this server sends it nothing by HTTP"
            )
        began = self._reactor.seconds()
        try:
            response = await self._send(appservice, "POST", f"{APP}/ping", b"{}")
            knows_pings = response.status not in UNKNOWN_ENDPOINT
            if not knows_pings:
                response = await self._empty_transaction(appservice)
        except OutboundError as error:
            return _explain_failure(appservice, error)
        if not is_success(response):
            return _explain_status(response)
        remark = "" if knows_pings else "; it does not know pings, but accepts events"
        seconds = self._reactor.seconds() - began
        return PingOutcome(
            is_reached=True, text=f"{appservice.url} answers in {seconds * 1000:.0f} ms{remark}"
        )

    async def _send(
        self, appservice: Appservice, method: str, path: str, body: bytes
    ) -> OutboundResponse:
        return await self._client.request(
            appservice, method, path, body=body, timeout=TIMEOUT_SECONDS
        )

    async def _empty_transaction(self, appservice: Appservice) -> OutboundResponse:
        path = f"/transactions/ping-{secrets.token_hex(8)}"
        return await self._client.request(
            appservice,
            "PUT",
            f"{APP}{path}",
            legacy_path=path,
            body=b'{"events":[]}',
            timeout=TIMEOUT_SECONDS,
        )


def _explain_status(response: OutboundResponse) -> PingOutcome:
    status = response.status
    if status in (401, 403):
        text, fix = f"it refuses the token of this server (status {status})", SAME_FILE
    elif 300 <= status < 400:
        text, fix = f"it redirects (status {status}), which is not followed", ANOTHER_PROGRAM
    elif status in UNKNOWN_ENDPOINT:
        text, fix = f"it knows neither pings nor transactions (status {status})", ANOTHER_PROGRAM
    else:
        body = response.body.decode("utf-8", "replace")[:MAX_SHOWN]
        text, fix = f"it answers with status {status}: {plain(body)}", "see its own log"
    return PingOutcome(is_reached=False, text=text, fix=fix)


def _explain_failure(appservice: Appservice, error: OutboundError) -> PingOutcome:
    url, causes = plain(appservice.url or ""), list(_causes(error))
    if isinstance(error, OutboundTimeout):
        text = f"{url} does not answer"
        fix = "see whether it hangs, and whether a firewall is in between"
        if url.startswith("https:"):
            fix = f"{NO_TLS}; else {fix}"
    elif any(isinstance(cause, Refused) for cause in causes):
        text, fix = f"{url} refuses connections", START_IT
    elif any(isinstance(cause, DNSLookupError) for cause in causes):
        text = f"the host of {url} is not known"
        fix = "correct `url` in its registration; names of containers are known in their network"
    elif any(isinstance(cause, SSL.Error | WrongCertificate) for cause in causes):
        text = f"TLS with {url} fails: {plain(str(error))}"
        fix = f"{NO_TLS}, or correct its certificate"
    else:
        text, fix = f"{url} gives no usable answer: {plain(str(error))}", ANOTHER_PROGRAM
    return PingOutcome(is_reached=False, text=text, fix=fix)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The errors behind an error; Twisted has some of them in a list."""
    while error is not None:
        yield error
        for reason in getattr(error, "reasons", None) or []:
            if isinstance(reason, Failure) and reason.value is not None:
                yield reason.value
        error = error.__cause__
