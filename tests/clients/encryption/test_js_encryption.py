"""Encrypted chat with matrix-js-sdk and its crypto of Rust, as in Element Web, under Node.

The scenarios are in `../js/encryption`, one file each.
"""

import pytest

from tests.clients.encryption.conftest import Servers
from tests.clients.node import NEEDS_NODE, node

PROGRAM = "encryption/main.mjs"
SCENARIOS = (
    "chat",
    "group",
    "verification",
    "removed_device",
    "key_backup",
    "fallback_key",
    "backlog",
)
pytestmark = [pytest.mark.interop, pytest.mark.timeout(240), *NEEDS_NODE]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(servers: Servers, scenario: str) -> None:
    """Users of Element Web can do this, and every device reads what it may."""
    first, second = servers.urls
    finished = node(PROGRAM, first, scenario, second, authority=servers.authority, timeout=200)

    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_no_scenario_is_left_out() -> None:
    """A scenario that is never run protects no user."""
    finished = node(PROGRAM, "http://localhost", "--list")

    assert tuple(finished.stdout.split()) == SCENARIOS
