"""A test case with a client for requests to other servers, and a few scripted servers."""

import shutil
import tempfile
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import TestCase

from federation.transport.client import FederationClient, Signer
from federation.transport.connections import Connections
from federation.transport.destination_health import DestinationHealth
from federation.transport.discovery import Discovery
from federation.transport.discovery_rules import Service
from federation.transport.errors import FederationError
from federation.transport.permitted_servers import PermittedServers
from homeserver.outbound.client_tls import ClientTls
from homeserver.outbound.networks import open_network
from homeserver.protocol.signing.signatures import SigningKey
from tests.support.certificates import CertificateAuthority
from tests.support.fake_server.scripted_peer import ScriptedPeer

HERE = "here.example"
KEY = SigningKey.from_seed("here", b"h" * 32)


class NoDatabase:
    """Takes what is to be stored, and knows nothing."""

    def __init__(self) -> None:
        self.written: list[Any] = []

    async def run(self, function: Any, *args: Any) -> Any:
        """The result of a storage function for an empty table."""
        self.written.append((function.__name__, args))
        return {}


class Names:
    """Delegations or SRV records: those in `known`, and no others."""

    def __init__(self, known: dict[str, Any] | None = None) -> None:
        self.known = known or {}
        self.looked_up: list[str] = []

    async def find(self, name: str) -> Any:
        """The answer for a name."""
        self.looked_up.append(name)
        return self.known.get(name)


class Services(Names):
    """SRV records."""

    def offer(self, name: str, *places: tuple[str, int]) -> None:
        """Offer a service at these hosts and ports."""
        self.known[name] = [Service(0, 0, host, port) for host, port in places]


class ClientTestCase(TestCase):
    """A test with a `client`, and peers made by `peer`.

    `delegations` and `services` can be changed at any time.
    """

    timeout = 60

    async def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.authority = CertificateAuthority(self.folder)
        self.delegations, self.services = Names(), Services()
        self.destinations = DestinationHealth(NoDatabase(), reactor)  # type: ignore[arg-type]
        self.addCleanup(lambda: Deferred.fromCoroutine(self.destinations.stop()))
        self.client = self.make_client()

    def make_client(
        self,
        *,
        private: bool = True,
        deny: Sequence[str] = (),
        tls: ClientTls | None = None,
        **bounds: int,
    ) -> FederationClient:
        """A client that trusts the test's authority."""
        tls = tls or ClientTls(ca_file=self.authority.path)
        connections = Connections(
            reactor, tls, open_network(reactor, "federation", allow_private_addresses=private)
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(connections.stop()))
        return FederationClient(
            reactor,
            Signer(HERE, KEY),
            Discovery(self.delegations, self.services),
            connections,
            PermittedServers((), deny),
            self.destinations,
            **bounds,
        )

    def peer(self, **how: Any) -> ScriptedPeer:
        """Another server."""
        peer = ScriptedPeer(self.authority, **how)
        self.addCleanup(lambda: Deferred.fromCoroutine(peer.stop()))
        return peer

    async def fails(
        self, kind: type[FederationError], attempt: Coroutine[Any, Any, Any], text: str = ""
    ) -> Any:
        """Check that the attempt fails with this error, whose message contains the text."""
        error = await self.assertFailure(ensureDeferred(attempt), kind)
        self.assertIn(text, str(error))
        return error

    async def until(self, condition: Any) -> None:
        """Wait for something that other parts of this process do."""
        while not condition():
            pause: Deferred[None] = Deferred()
            reactor.callLater(0.01, pause.callback, None)  # type: ignore[attr-defined]
            await pause
