"""Kill -9 of the server while users come and go: the directory ends as the rooms are.

Spec: https://spec.matrix.org/v1.19/client-server-api/#user-directory
"""

import contextlib
import itertools
import time
from collections.abc import Iterator

import pytest

from tests.clients.plain_client import ConnectionLost, User, register
from tests.crash.senders import ClientThread
from tests.support.process import SHARED_SECRET, ServerProcess, running_server
from tests.support.refused import Refused

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
CRASHES = 3
LOAD_SECONDS = 0.8
WAIT_SECONDS = 60.0
CLIENT = "/_matrix/client/v3"


class Visitor(ClientThread):
    """A user who joins, renames themselves and leaves; `name` is the newest one."""

    def __init__(self, user: User, room_id: str) -> None:
        super().__init__()
        self.user = user
        self.room_id = room_id
        self.name = ""
        self._numbers = itertools.count()

    def step(self) -> None:
        """Join under another name, and leave."""
        self.name = f"Name{next(self._numbers)}"
        path = f"{CLIENT}/profile/{self.user.user_id}/displayname"
        self.insist("PUT", path, {"displayname": self.name})
        self.join()
        self.insist("POST", f"{CLIENT}/rooms/{self.room_id}/leave", {})

    def join(self) -> None:
        """Join the room."""
        self.insist("POST", f"{CLIENT}/join/{self.room_id}", {})

    def insist(self, method: str, path: str, body: object) -> None:
        """Send a request until the server has responded."""
        while True:
            with contextlib.suppress(ConnectionLost, Refused):
                self.user.request(method, path, body)
                return
            time.sleep(0.05)


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    """A fresh server."""
    with running_server() as running:
        yield running


def test_killed_server_finds_everybody_under_the_newest_name(server: ServerProcess) -> None:
    """Neither is somebody missing who is in the room, nor found by a former name."""
    alice, *users = [
        register(server.url, SHARED_SECRET, name) for name in ("alice", "bob", "carol", "dora")
    ]
    room = alice.create_room(preset="public_chat")
    visitors = [Visitor(user, room) for user in users]
    for visitor in visitors:
        visitor.start()
    for _ in range(CRASHES):
        time.sleep(LOAD_SECONDS)
        server.kill()
        server.start()
    time.sleep(LOAD_SECONDS)
    for visitor in visitors:
        visitor.stop()
        visitor.join()
    alice.close()  # its connection is that of the first process

    assert [visitor.failure for visitor in visitors] == [None] * len(visitors)
    expected = {visitor.user.user_id: visitor.name for visitor in visitors}
    deadline = time.monotonic() + WAIT_SECONDS
    while (found := names_found(alice)) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def names_found(searcher: User) -> dict[str, str]:
    """The users who are found by the beginning of all their names."""
    body = {"search_term": "name", "limit": 50}
    answer = searcher.request("POST", f"{CLIENT}/user_directory/search", body)
    return {user["user_id"]: user["display_name"] for user in answer["results"]}
