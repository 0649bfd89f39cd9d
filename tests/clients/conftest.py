"""One server process for all tests of a module."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.clients.plain_client import User, register
from tests.support.process import SHARED_SECRET, ServerProcess, running_server

NewUser = Callable[[str], User]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A running server."""
    with running_server() as process:
        yield process


@pytest.fixture(scope="module")
def new_user(server: ServerProcess) -> NewUser:
    """Registers an account whose name starts with the one given."""
    numbers = itertools.count(1)

    def make(name: str) -> User:
        return register(server.url, SHARED_SECRET, f"{name}{next(numbers)}")

    return make
