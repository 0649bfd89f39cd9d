"""Files with matrix-js-sdk, the library of Element Web, under Node: faces, attachments, previews.

The flows are in `js/media_flows.mjs`.
"""

from collections.abc import Iterator

import pytest

from tests.clients.node import NEEDS_NODE, node
from tests.support.process import ServerProcess, running_server

PROGRAM = "media_flows.mjs"
FLOWS = ("avatars", "room_avatar", "attachments", "encrypted_attachments", "url_preview")
# The pages of the tests are on this machine.
PREVIEWS = {
    "url_previews": {"enabled": True, "ports": []},
    "outbound_http": {"allow_private_addresses": True},
}
pytestmark = [pytest.mark.interop, *NEEDS_NODE]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A running server that shows previews of pages."""
    with running_server(PREVIEWS) as process:
        yield process


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
