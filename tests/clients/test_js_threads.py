"""Threads with matrix-js-sdk, the library of Element Web, under Node.

The flows are in `js/thread_flows.mjs`.
"""

import pytest

from tests.clients.node import NEEDS_NODE, node
from tests.support.process import ServerProcess

PROGRAM = "thread_flows.mjs"
FLOWS = ("panel", "unread", "changes")
pytestmark = [pytest.mark.interop, *NEEDS_NODE]


@pytest.mark.parametrize("flow", FLOWS)
def test_flow(server: ServerProcess, flow: str) -> None:
    """A user of Element Web can do this."""
    finished = node(PROGRAM, server.url, flow)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert server.new_errors() == []


def test_no_flow_is_left_out() -> None:
    """A flow that is never run protects no user."""
    finished = node(PROGRAM, "http://localhost", "--list")

    assert tuple(finished.stdout.split()) == FLOWS
