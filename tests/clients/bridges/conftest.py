"""The servers, the IRC network and the bridges that the tests of this folder share."""

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.bridges.heisenbridge import Heisenbridge
from tests.clients.bridges.irc import Ngircd
from tests.clients.bridges.registrations import register
from tests.support.sites import LOCAL, Sites, show_logs


class IrcBridges:
    """Two servers that federate; the bridge of the second one is behind NAT."""

    def __init__(self, sites: Sites, directory: Path) -> None:
        self._sites = sites
        self._directory = directory
        self._running: dict[int, Heisenbridge] = {}
        self.configured: set[int] = set()  # those that have an owner
        self.sites = sites.pair(LOCAL, LOCAL)
        self.trusting = sites.authority.client_context()

    def get(self, number: int) -> Heisenbridge:
        """The bridge of the first server, or of the second (1), running."""
        if number not in self._running:
            folder = self._directory / str(number)
            folder.mkdir()
            site = self.sites[number]
            bridge = Heisenbridge(folder, site, self._sites.authority.path, websocket=number == 1)
            register(site, bridge.registration)
            self._running[number] = bridge
            bridge.start()
        return self._running[number]

    def close(self) -> None:
        """End the bridges."""
        for bridge in self._running.values():
            bridge.close()
        self._directory.rmdir()


@pytest.fixture(scope="session")
def sites() -> Iterator[Sites]:
    """The servers that all tests of this process share."""
    running = Sites()
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="session")
def irc_network() -> Iterator[Ngircd]:
    """A running IRC server."""
    directory = Path(tempfile.mkdtemp(prefix="homeserver-irc-"))
    directory.chmod(0o755)
    with Ngircd(directory) as network:
        network.start()
        yield network


@pytest.fixture(scope="session")
def irc_bridges(sites: Sites) -> Iterator[IrcBridges]:
    """Bridges to IRC, on demand."""
    bridges = IrcBridges(sites, Path(tempfile.mkdtemp(prefix="homeserver-bridges-")))
    try:
        yield bridges
    finally:
        bridges.close()


@pytest.fixture
def bridges(irc_bridges: IrcBridges) -> Iterator[IrcBridges]:
    """Bridges to IRC, on demand; the servers must not have complained afterwards."""
    yield irc_bridges
    errors = [line for site in irc_bridges.sites for line in site.program.new_errors()]
    assert errors == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what the servers logged last, and keeps their logs."""
    report = yield
    show_logs(item, report)
    return report
