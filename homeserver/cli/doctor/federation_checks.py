"""Checks of federation: whether a server can be found, proves its name, and responds.

Each step of discovery is reported, so that an operator who sets up a delegation sees where it goes
wrong.

Spec: https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names
"""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from OpenSSL.crypto import X509
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from federation.transport.client import FederationClient, Signer
from federation.transport.connections import Connections
from federation.transport.discovery import Discovery
from federation.transport.discovery_rules import Address, AskWellKnown, Question
from federation.transport.errors import FederationError
from federation.transport.permitted_servers import PermittedServers
from federation.transport.service_records import ServiceRecords
from federation.transport.well_known import WellKnownDelegations
from homeserver.cli.doctor.findings import Finding, ok, problem, warning
from homeserver.concurrency.clock import wall_seconds
from homeserver.config.errors import CertificateError, ConfigError
from homeserver.config.settings import Settings
from homeserver.config.signing_key import load_signing_keys
from homeserver.outbound.client_tls import ClientTls
from homeserver.outbound.http_client import reason_of
from homeserver.outbound.networks import open_network
from homeserver.protocol.signing.server_keys import InvalidServerKeys, parse_server_keys
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.wiring.federation.federation import web_client

TIMEOUT = 15.0  # seconds, for each step
RENEWAL_SECONDS = (
    14 * 86_400.0
)  # seconds: a certificate that expires within them should have been renewed

Report = Callable[[Finding], object]


def own_name_to_check(settings: Settings) -> str | None:
    """The server's own name, if other servers can reach it by that name."""
    serves = any("federation" in listener.resources for listener in settings.listeners)
    return settings.server_name if serves and settings.server_name != "localhost" else None


async def check_federation(reactor: Any, settings: Settings, server: str, report: Report) -> None:
    """Report the findings about another server, or about this one's own name."""
    try:
        check = FederationCheck(reactor, settings, report)
    except CertificateError as error:
        report(problem("federation", str(error), "correct federation.ca_file"))
        return
    try:
        await check.run(server)
    finally:
        await check.stop()


class FederationCheck:
    """The steps of connecting to a server, one finding each. Raises `CertificateError`."""

    def __init__(self, reactor: Any, settings: Settings, report: Report) -> None:
        rules = settings.federation
        self._reactor = reactor
        self._settings = settings
        self._report = report
        self._tls = ClientTls(verify=rules.verify_certificates, ca_file=rules.ca_file)
        self._network = open_network(
            reactor, "federation", allow_private_addresses=rules.allow_private_addresses
        )
        self._web = web_client(reactor, settings, self._tls, self._network)
        self._discovery = Discovery(
            WellKnownDelegations(reactor, self._web), ServiceRecords(reactor)
        )
        self._connections = Connections(reactor, self._tls, self._network)
        # Nothing is signed, so the key is never used, and the server's own name can be checked as
        # well.
        anonymous = Signer("", SigningKey.from_seed("none", secrets.token_bytes(32)))
        self._client = FederationClient(
            reactor,
            anonymous,
            self._discovery,
            self._connections,
            PermittedServers(rules.allow, rules.deny),
            _NullHealth(),
        )

    async def stop(self) -> None:
        """Close all connections."""
        await self._connections.stop()
        await self._web.stop()

    async def run(self, server: str) -> None:
        """Take the steps; stop after the first that fails."""
        is_own = server == self._settings.server_name
        try:
            address = await self._discovery.find(
                server, lambda question, response: self._report(_found(server, question, response))
            )
            await self._check_certificate(server, address)
            await self._check_keys(server, is_own=is_own)
            await self._check_version(server)
        except (FederationError, InvalidServerKeys) as error:
            bad = warning if is_own else problem
            fix = (
                "start the server, then see docs/federation.md"
                if is_own
                else "inform its operators, or check the network between the servers"
            )
            self._report(bad(server, str(error).removeprefix(f"{server}: "), fix))

    async def _check_certificate(self, server: str, address: Address) -> None:
        for target in address.targets:
            place = f"{target.host}, port {target.port}"
            endpoint = wrapClientTLS(
                self._tls.to(address.certificate_name),
                HostnameEndpoint(self._network, target.host, target.port, timeout=TIMEOUT),
            )
            try:
                probe: Any = await endpoint.connect(Factory.forProtocol(_Probe))
                certificate = await probe.certificate.addTimeout(TIMEOUT, self._reactor)
            except Exception as error:
                self._report(problem(server, f"{place}: {reason_of(error)}", suggested_fix(error)))
                continue
            left = _ends_at(certificate) - wall_seconds(self._reactor)
            until = datetime.fromtimestamp(_ends_at(certificate), tz=UTC).date().isoformat()
            text = f"{place}: certificate for {address.certificate_name}, valid until {until}"
            fix = "check why it was not renewed"
            self._report(ok(server, text) if left > RENEWAL_SECONDS else warning(server, text, fix))

    async def _check_keys(self, server: str, *, is_own: bool) -> None:
        response = await self._client.get(
            server, "/_matrix/key/v2/server", signed=False, timeout=TIMEOUT
        )
        found = parse_server_keys(response, server, int(wall_seconds(self._reactor) * 1000))
        key_ids = {key.key_id: key.verify_key for key in found.keys if not key.is_old}
        self._report(ok(server, f"publishes the keys {', '.join(sorted(key_ids))}"))
        if is_own and not self._is_local(key_ids):
            self._report(
                problem(
                    server,
                    "the published key is not the key of this installation",
                    "check which server responds under this name",
                )
            )

    async def _check_version(self, server: str) -> None:
        response = await self._client.get(
            server, "/_matrix/federation/v1/version", signed=False, timeout=TIMEOUT
        )
        about = response.get("server")
        about = about if isinstance(about, dict) else {}
        self._report(ok(server, f"runs {about.get('name', '?')} {about.get('version', '?')}"[:200]))

    def _is_local(self, published: dict[str, str]) -> bool:
        try:
            keys = load_signing_keys(self._settings.signing_key_path)
        except ConfigError:
            return True  # reported by the check of the key
        return all(published.get(key.key_id) == key.verify_key for key in keys)


class _NullHealth:
    """A record of server health that lets every request through."""

    def check(self, server: str) -> None: ...

    def failed(self, server: str) -> None: ...

    def succeeded(self, server: str) -> None: ...


def suggested_fix(error: Exception) -> str:
    """A suggestion for a server to which no connection can be made."""
    if isinstance(error, DNSLookupError):
        return "add an address of the host to the DNS, or use another host"
    return "open the port, or fix TLS"


@implementer(IHandshakeListener)
class _Probe(Protocol):
    """A protocol that reads the certificate and closes the connection."""

    def __init__(self) -> None:
        self.certificate: Deferred[X509] = Deferred()

    def handshakeCompleted(self) -> None:
        """The TLS handshake has succeeded, so the certificate is valid."""
        transport: Any = self.transport
        self.certificate.callback(transport.getPeerCertificate())
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.certificate.called:
            self.certificate.errback(reason)


def _found(server: str, question: Question, response: Any) -> Finding:
    """The finding for one step of discovery."""
    if isinstance(question, AskWellKnown):
        place = f"https://{question.host}/.well-known/matrix/server"
        return ok(server, f"{place} names {response}" if response else f"{place} names no server")
    if response is None:
        return ok(server, f"there is no SRV record {question.name}")
    places = ", ".join(f"{one.host}:{one.port}" for one in response)
    return ok(server, f"the SRV record {question.name} names {places}")


def _ends_at(certificate: X509) -> float:
    """The expiry of a certificate, in seconds since the epoch."""
    return certificate.to_cryptography().not_valid_after_utc.timestamp()
