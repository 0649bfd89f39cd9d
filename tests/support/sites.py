"""Homeservers of several organisations on this machine, each behind a proxy that can fail.

A `Site` is a server process of either kind, this implementation or the peer, with the proxy by
which other servers reach it. `Sites` starts them on demand, once for all tests. A `Scene` gives one
test two of them: it registers users, cuts the network, and restores it.
"""

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet import reactor
from twisted.web.client import HTTPConnectionPool

from tests.clients.plain_client import registration
from tests.support.actors import Client
from tests.support.certificates import CertificateAuthority, CertificateFiles
from tests.support.peer import PeerProcess
from tests.support.process import ServerProcess
from tests.support.program import SHARED_SECRET, Program, free_port
from tests.support.proxy import Mode, Proxy
from tests.support.reactor import in_thread, together
from tests.support.refused import Refused
from tests.support.watcher import Watcher, eventually

LOCAL, PEER = "local", "peer"
LINES_SHOWN = 60
START_SECONDS = 180.0  # several start at once, on a busy machine


class Site:
    """One organisation: its server, and the proxy in front. `name` is the server's name.

    A site without a proxy cannot be cut off, but nothing is slower. `cpus` are the cores that this
    implementation may use with its database.
    """

    def __init__(
        self,
        kind: str,
        directory: Path,
        authority: CertificateAuthority,
        certificate: CertificateFiles,
        *,
        directly: bool = False,
        cpus: set[int] | None = None,
    ) -> None:
        self.kind = kind
        port = free_port()
        self.proxy = Proxy(port)
        self.name = f"127.0.0.1:{port if directly else self.proxy.port}"
        self.program: Program
        if kind == PEER:
            self.program = PeerProcess(
                directory, authority, certificate, port=port, server_name=self.name
            )
        else:
            self.program = ServerProcess(
                directory,
                overrides=federating(self.name, port, authority, certificate),
                port=port,
                trusting=authority.client_context(),
                cpus=cpus,
            )

    async def kill(self) -> None:
        """Kill the server with SIGKILL."""
        await in_thread(self.program.kill)

    async def start(self) -> None:
        """Start the server, again after `kill`, with the data it had."""
        await in_thread(self.program.start)

    def close(self) -> None:
        """End the server and the proxy, and remove all data."""
        self.program.close()
        self.proxy.close()


class Sites:
    """The sites that the tests of one session share, started on demand."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="homeserver-sites-"))
        self._directory.chmod(0o755)
        self.authority = CertificateAuthority(self._directory)
        self._certificate = self.authority.issue()
        self._running: dict[tuple[str, int], Site] = {}
        self.keeps_logs = False

    @property
    def logs(self) -> Path:
        """The directory of the logs if `keeps_logs` is set."""
        return self._directory / "logs"

    def get(self, kind: str, number: int) -> Site:
        """The site of this kind and number, running."""
        site = self._running.get((kind, number))
        if site is None:
            site = self._make(kind, number)
            site.program.start(START_SECONDS)
        return site

    def skewed(self, kind: str, seconds: float) -> Site:
        """A site of this kind whose clock is ahead by so much, or behind, running."""
        number = int(seconds)
        if (kind, number) not in self._running:
            site = self._make(kind, number)
            site.program.clock_skew = seconds
            site.program.start(START_SECONDS)
        return self._running[kind, number]

    def pair(self, first: str, second: str) -> tuple[Site, Site]:
        """Two sites of these kinds, running."""
        keys = (first, 0), (second, 1 if first == second else 0)
        # Those that are missing start side by side.
        with ThreadPoolExecutor() as starting:
            one, other = starting.map(lambda key: self.get(*key), keys)
        return one, other

    def _make(self, kind: str, number: int) -> Site:
        directory = self._directory / f"{kind}{number}"
        directory.mkdir(mode=0o755)
        site = Site(kind, directory, self.authority, self._certificate)
        self._running[kind, number] = site
        return site

    def last_output(self) -> dict[str, str]:
        """The last lines of the logs of each site by its title."""
        return {
            f"{kind} {number}, {site.name}": site.program.last_output(LINES_SHOWN)
            for (kind, number), site in self._running.items()
        }

    def close(self) -> None:
        """End all, and leave nothing behind but logs that are to be kept."""
        if self.keeps_logs:
            self.logs.mkdir()
            for (kind, number), site in self._running.items():
                for log in site.program.logs:
                    if log.exists():
                        shutil.copy(log, self.logs / f"{kind}{number}-{log.name}")
        for site in self._running.values():
            site.close()
        if not self.keeps_logs:
            shutil.rmtree(self._directory)


def show_logs(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add to the report of a test that failed what its `sites` logged last, and keep their logs."""
    sites = getattr(item, "funcargs", {}).get("sites")
    if report.failed and isinstance(sites, Sites):
        sites.keeps_logs = True
        report.sections += sites.last_output().items()
        report.sections.append(("whole logs", f"will be in {sites.logs}"))


class Scene:
    """Two sites as one test sees them. The test's users are new, on `first` or on `second`."""

    numbers = count(1)

    def __init__(self, first: Site, second: Site, authority: CertificateAuthority) -> None:
        self.first = first
        self.second = second
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = 20
        self._http = authority.http_client(self._pool)
        self._harmed = False

    @property
    def both(self) -> tuple[Site, Site]:
        """The first and the second site."""
        return self.first, self.second

    async def alice_and_bob(self) -> tuple[Watcher, Watcher]:
        """A user of the first site and one of the second."""
        alice, bob = await together(self.user(self.first, "alice"), self.user(self.second, "bob"))
        return alice, bob

    async def user(self, site: Site, name: str) -> Watcher:
        """A new account whose name starts with the one given."""
        client = Client(self._http, site.program.url)
        path = "/_synapse/admin/v1/register"
        nonce = (await client.request("GET", path))["nonce"]
        body = registration(SHARED_SECRET, nonce, f"{name}{next(self.numbers)}")
        response = await client.request("POST", path, body)
        return Watcher(
            self._http,
            site.program.url,
            response["user_id"],
            response["device_id"],
            response["access_token"],
        )

    def cut(self, mode: Mode = Mode.REFUSE) -> None:
        """Cut the network between the sites; their own users notice nothing."""
        self._harmed = True
        for site in self.both:
            site.proxy.set_mode(mode)

    async def kill(self, site: Site) -> None:
        """Kill a server with SIGKILL."""
        self._harmed = True
        await site.kill()

    async def heal(self) -> None:
        """Restore the network, start killed servers, and wait until both sites talk again."""
        for site in self.both:
            site.proxy.set_mode(Mode.PASS)
        # Connections to a server that was killed are of no use.
        await self._pool.closeCachedConnections()
        for site in self.both:
            if not await in_thread(site.program.is_responding):
                await site.start()
        await together(self._reaches(*self.both), self._reaches(*reversed(self.both)))
        self._harmed = False

    async def close(self) -> None:
        """Leave two sites that work, and nothing on the reactor; they must not have complained."""
        if self._harmed:
            await self.heal()
        await self._pool.closeCachedConnections()
        errors = [line for site in self.both for line in site.program.new_errors()]
        assert errors == []

    async def _reaches(self, site: Site, other: Site) -> None:
        """The other server may be backing off from one that was unreachable."""
        asking = await self.user(site, "scout")
        unknown = f"@nobody:{other.name}"

        async def is_unknown() -> bool:
            try:
                await asking.get(f"/profile/{quote(unknown)}")
            except Refused as refused:
                return refused.status == 404
            return True

        await eventually(is_unknown, f"{site.name} reaches {other.name}")


def federating(
    name: str, port: int, authority: CertificateAuthority, certificate: CertificateFiles
) -> dict[str, Any]:
    """Settings for an instance of this server that federates with servers on this machine."""
    return {
        # Unknown settings only cause a warning.
        "unknown_keys": "warn",
        "server_name": name,
        "public_baseurl": f"https://127.0.0.1:{port}",
        "listeners": [
            {
                "port": port,
                "bind": "127.0.0.1",
                "tls": {
                    "certificate": str(certificate.certificate),
                    "private_key": str(certificate.private_key),
                },
                "resources": ["client", "federation"],
            }
        ],
        "federation": {
            "ca_file": str(authority.path),
            "verify_certificates": True,
            "allow_private_addresses": True,
        },
        "outbound_http": {"verify_certificates": False, "allow_private_addresses": True},
        "room_directory": {
            "allow_publishing": True,
            "public_without_login": True,
            "over_federation": True,
        },
    }
