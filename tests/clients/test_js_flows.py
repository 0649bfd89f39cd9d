"""Flows of one feature each with matrix-js-sdk, the library of Element Web, under Node.

The flows are in the programs in `js/`.
"""

import pytest

from tests.clients.node import NEEDS_NODE, node
from tests.support.process import ServerProcess

FLOWS = {
    "search_flows.mjs": ("people", "messages", "all_rooms"),
    "sticky_flows.mjs": ("call", "leave"),
    "thread_flows.mjs": ("panel", "unread", "changes"),
}
pytestmark = [pytest.mark.interop, *NEEDS_NODE]


@pytest.mark.parametrize(
    ("program", "flow"), [(program, flow) for program, flows in FLOWS.items() for flow in flows]
)
def test_flow(server: ServerProcess, program: str, flow: str) -> None:
    """A user of Element Web or Element Call can do this."""
    finished = node(program, server.url, flow)

    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert server.new_errors() == []


@pytest.mark.parametrize("program", FLOWS)
def test_no_flow_is_left_out(program: str) -> None:
    """A flow that is never run protects no user."""
    finished = node(program, "http://localhost", "--list")

    assert tuple(finished.stdout.split()) == FLOWS[program]
