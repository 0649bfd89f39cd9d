"""One server process for all tests of a module."""

import asyncio
import inspect
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.plain_client import User, register
from tests.support.process import SHARED_SECRET, ServerProcess, free_port, running_server

NewUser = Callable[[str], User]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A running server."""
    with running_server() as process:
        yield process


@pytest.fixture(scope="module")
def oauth_server() -> Iterator[ServerProcess]:
    """A server with the API, at an address that browsers reach."""
    port = free_port()
    overrides: dict[str, Any] = {
        "public_baseurl": f"http://localhost:{port}",
        "oauth": {"enabled": True},
    }
    directory = Path(tempfile.mkdtemp(prefix="homeserver-"))
    directory.chmod(0o755)
    with ServerProcess(directory, overrides=overrides, port=port) as process:
        process.start()
        yield process


@pytest.fixture(scope="module")
def new_user(server: ServerProcess) -> NewUser:
    """Registers an account whose name starts with the one given."""
    numbers = itertools.count(1)

    def make(name: str) -> User:
        return register(server.url, SHARED_SECRET, f"{name}{next(numbers)}")

    return make


@pytest.fixture
def alice(new_user: NewUser) -> User:
    """The user who receives."""
    return new_user("alice")


@pytest.fixture
def bob(new_user: NewUser) -> User:
    """The user who sends."""
    return new_user("bob")


@pytest.fixture
def room(alice: User, bob: User) -> str:
    """A room that both have joined."""
    room_id = alice.create_room(preset="public_chat")
    bob.join(room_id)
    return room_id


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine, on an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True
