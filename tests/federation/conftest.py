"""Scenarios between two servers: coroutines that run on the reactor, with a `scene` as argument."""

import inspect
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.federation.pairs import KINDS, PAIRS
from tests.support.fake_server.server import FakeServer
from tests.support.peer import is_peer_installed
from tests.support.reactor import run
from tests.support.sites import PEER, Scene, Sites, show_logs


@pytest.fixture(scope="session")
def sites() -> Iterator[Sites]:
    """The servers that all scenarios of this process share."""
    running = Sites()
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(params=PAIRS, ids="-".join)
def scene(request: pytest.FixtureRequest, sites: Sites) -> Iterator[Scene]:
    """Two running servers that know nothing of this test yet."""
    kinds: tuple[str, str] = request.param
    _skip_without(kinds)
    playing = Scene(*sites.pair(*kinds), sites.authority)
    try:
        yield playing
    finally:
        run(playing.close())


@pytest.fixture(params=KINDS)
def solo(request: pytest.FixtureRequest, sites: Sites) -> Iterator[Scene]:
    """One server that works, as both sites of a scene; for tests that play the other side."""
    _skip_without((request.param,))
    site = sites.get(request.param, 0)
    playing = Scene(site, site, sites.authority)
    try:
        yield playing
    finally:
        run(playing.close())


@pytest.fixture
def fake(sites: Sites) -> Iterator[FakeServer]:
    """A scripted server, running."""
    server = FakeServer(sites.authority)
    run(server.start())
    try:
        yield server
    finally:
        run(server.stop())


def _skip_without(kinds: tuple[str, ...]) -> None:
    if PEER in kinds and not is_peer_installed():
        pytest.skip("the peer is not installed: make peer")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A scenario that failed shows what the servers logged last, and keeps their logs."""
    report = yield
    show_logs(item, report)
    return report
