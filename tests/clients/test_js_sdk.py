"""Everyday flows with matrix-js-sdk, the library of Element Web, under Node.

The flows are in `js/flows.mjs`.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.clients.node import FOLDER, NEEDS_NODE, node
from tests.support.process import ServerProcess, running_server

PROGRAM = "flows.mjs"
FLOWS = (
    "log_in",
    "pictures",
    "chat",
    "invites",
    "group",
    "typing",
    "receipts",
    "presence",
    "devices",
    "settings",
    "scroll_short",
    "scroll_back",
    "edits",
    "calls",
    "delayed_events",
    "related_redactions",
    "reactions",
    "replies",
    "redactions",
    "knocks",
    "profiles",
    "upgrade",
    "tags_and_markers",
    "ignoring",
    "scroll_to_start",
)
RECONNECTING = "reconnecting"  # needs a test that stops the server
pytestmark = [pytest.mark.interop, *NEEDS_NODE]


@pytest.mark.parametrize("flow", FLOWS)
def test_flow(server: ServerProcess, flow: str) -> None:
    """A user of Element Web can do this."""
    finished = node(PROGRAM, server.url, flow)

    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_no_flow_is_left_out(server: ServerProcess) -> None:
    """A flow that is never run protects no user."""
    finished = node(PROGRAM, server.url, "--list")

    assert tuple(finished.stdout.split()) == (*FLOWS, RECONNECTING)


def test_client_continues_after_a_restart() -> None:
    """A user need not reload the page because the server was updated."""
    with running_server() as server, client(server.url, RECONNECTING) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == "ready\n", said + process.communicate(timeout=60)[0]

        server.stop()
        server.start()

        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output


@contextmanager
def client(url: str, flow: str) -> Iterator[subprocess.Popen[str]]:
    """A flow that runs in parallel with the test."""
    process = subprocess.Popen(
        ["node", PROGRAM, url, flow],
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
