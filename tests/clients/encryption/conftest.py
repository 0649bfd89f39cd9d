"""The servers on which the users of a scenario are."""

import ssl
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.clients.encryption.pairs import NAMES, PAIRS
from tests.support.peer import is_peer_installed
from tests.support.sites import PEER, Site, Sites, show_logs


class Servers(NamedTuple):
    """One server, or two that federate; clients verify their certificates by `trusting`."""

    first: Site
    second: Site
    trusting: ssl.SSLContext
    authority: Path

    @property
    def urls(self) -> tuple[str, str]:
        """Where the clients of the first user, and of the second, go."""
        return self.first.program.url, self.second.program.url


@pytest.fixture(scope="session")
def sites() -> Iterator[Sites]:
    """The servers that all scenarios of this process share."""
    running = Sites()
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(params=PAIRS, ids=NAMES)
def servers(request: pytest.FixtureRequest, sites: Sites) -> Iterator[Servers]:
    """Running servers, which must not have complained afterwards."""
    kinds: tuple[str, ...] = request.param
    if PEER in kinds and not is_peer_installed():
        pytest.skip("the peer is not installed: make peer")
    if len(kinds) == 1:
        first = second = sites.get(kinds[0], 0)
    else:
        first, second = sites.pair(*kinds)
    authority = sites.authority
    yield Servers(first, second, authority.client_context(), authority.path)
    errors = [line for site in {first, second} for line in site.program.new_errors()]
    assert errors == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A scenario that failed shows what the servers logged last, and keeps their logs."""
    report = yield
    show_logs(item, report)
    return report
