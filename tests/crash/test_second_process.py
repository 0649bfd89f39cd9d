"""A second process on one database: refused while the first lives, and its successor afterwards.

Without this, both served, and each lost what the other had acknowledged.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.plain_client import ConnectionLost, User, register
from tests.support.postgres import drop_database, fresh_database, stored_json
from tests.support.process import SHARED_SECRET, ServerDied, ServerProcess
from tests.support.program import free_port
from tests.support.refused import Refused

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]
LEASE_SECONDS = 3.0
START_SECONDS = 10.0  # on a busy machine


class Pair:
    """Two servers on one database; the first one runs, and has a user with a room."""

    def __init__(self, dsn: str, first: ServerProcess, second: ServerProcess) -> None:
        self.dsn = dsn
        self.first = first
        self.second = second
        self.user: User = register(first.url, SHARED_SECRET, "alice")
        self.room_id = self.user.create_room()

    def send(self, server: ServerProcess, body: str) -> str:
        user = User(server.url, self.user.user_id, self.user.device_id, self.user.token or "")
        try:
            return user.send(self.room_id, body, body, timeout=START_SECONDS)
        finally:
            user.close()

    def messages(self) -> list[str]:
        """The stored messages, oldest first."""
        events = [json.loads(stored) for stored in stored_json(self.dsn)]
        return [each["content"]["body"] for each in events if each["type"] == "m.room.message"]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    dsn = fresh_database()
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    with ServerProcess(first) as one, ServerProcess(second, port=free_port()) as two:
        for server in (one, two):
            listener = {"port": server.port, "bind": "127.0.0.1", "resources": ["client"]}
            key = {"signing_key_path": str(first / "signing.key")}
            server.configure({"database": {"dsn": dsn}, "listeners": [listener], **key})
        one.start()
        yield Pair(dsn, one, two)
    drop_database(dsn)


def test_a_second_process_is_refused(pair: Pair) -> None:
    """An operator learns which process uses the database; the first one notices nothing."""
    with pytest.raises(ServerDied) as died:
        pair.second.start()

    said = f"the database is in use by another homeserver: process {pair.first.pid} on "
    assert said in str(died.value)
    pair.send(pair.first, "still here")
    assert pair.messages() == ["still here"]
    assert pair.first.new_errors() == []


def test_the_successor_of_a_killed_process_has_all_that_was_acknowledged(pair: Pair) -> None:
    """After a kill the next start does not even wait for the lease, on the same machine."""
    for body in ("one", "two", "three"):
        pair.send(pair.first, body)
    pair.first.kill()

    pair.second.start()

    assert "took the database over" in pair.second.last_output()
    pair.send(pair.second, "four")
    assert pair.messages() == ["one", "two", "three", "four"]


def test_a_stopped_process_that_goes_on_writes_nothing_and_ends(pair: Pair) -> None:
    """A virtual machine that was paused comes back when another one has taken over."""
    pair.send(pair.first, "before")
    os.kill(pair.first.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        pair.second.start()
        assert time.monotonic() - began < LEASE_SECONDS + START_SECONDS
        pair.send(pair.second, "meanwhile")
    finally:
        os.kill(pair.first.pid, signal.SIGCONT)
    with pytest.raises((Refused, ConnectionLost, OSError)):
        pair.send(pair.first, "too late")

    assert pair.first.wait_for_end(30) == 1
    pair.send(pair.second, "after")
    assert pair.messages() == ["before", "meanwhile", "after"]
    assert pair.second.new_errors() == []


def test_a_process_that_stops_lets_the_next_one_in_at_once(pair: Pair) -> None:
    """An update of the server is a stop and a start."""
    pair.send(pair.first, "before")
    assert pair.first.stop() == 0

    pair.second.start()

    assert "took the database over" not in pair.second.last_output()
    pair.send(pair.second, "after")
    assert pair.messages() == ["before", "after"]
