"""Sticky events with matrix-js-sdk, as Element Call uses them, under Node.

The flows are in `js/sticky_flows.mjs`.
"""

import pytest

from tests.clients.node import NEEDS_NODE, node
from tests.support.process import ServerProcess

PROGRAM = "sticky_flows.mjs"
FLOWS = ("call", "leave")
pytestmark = [pytest.mark.interop, *NEEDS_NODE]


@pytest.mark.parametrize("flow", FLOWS)
def test_flow(server: ServerProcess, flow: str) -> None:
    """Users see who is in a call."""
    finished = node(PROGRAM, server.url, flow)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert server.new_errors() == []


def test_no_flow_is_left_out() -> None:
    """A flow that is never run protects no user."""
    finished = node(PROGRAM, "http://localhost", "--list")

    assert tuple(finished.stdout.split()) == FLOWS
