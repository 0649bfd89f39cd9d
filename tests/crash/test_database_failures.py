"""A failing database, and a clock that is set: the server reports it, and continues or ends.

No user loses a message that was acknowledged, no client waits without end, and an operator sees the
state of the process by its health or its exit status.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.clients.plain_client import ConnectionLost, Http, User, register
from tests.support.postgres import drop_database, fresh_database
from tests.support.process import SHARED_SECRET, ServerProcess
from tests.support.refused import Refused

pytestmark = [pytest.mark.interop, pytest.mark.timeout(120)]
PATIENCE_SECONDS = 15.0
HOUR = 3600.0

REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'refused' USING ERRCODE = '{code}';
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON events EXECUTE FUNCTION refuse();
"""
DISK_FULL, FORBIDDEN = "53100", "42501"


class Scene:
    """A server on a database of its own, and a user with a room."""

    def __init__(self, server: ServerProcess, dsn: str) -> None:
        self.server = server
        self.dsn = dsn
        self.user: User = register(server.url, SHARED_SECRET, "alice")
        self.room_id = self.user.create_room()

    def execute(self, statement: str) -> list[Any]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def send(self, body: str) -> str:
        """Send a message over a connection of its own; gives the event id."""
        user = User(self.server.url, self.user.user_id, self.user.device_id, self.user.token or "")
        try:
            return user.send(self.room_id, body, body, timeout=PATIENCE_SECONDS)
        finally:
            user.close()

    def messages(self) -> dict[str, str]:
        """The messages of the room: event id to body."""
        return {
            event["event_id"]: event["content"]["body"]
            for event in self.user.messages(self.room_id, None)
            if event["type"] == "m.room.message"
        }

    def end_connections(self) -> None:
        """Have the server connect again."""
        for pid in self.backends():
            self.execute(f"SELECT pg_terminate_backend({pid})")

    def health(self) -> dict[str, str]:
        """The result of each check."""
        http = Http(self.server.url)
        try:
            checks: dict[str, str] = http.request("GET", "/health", timeout=10)["checks"]
        except Refused as refused:
            checks = refused.body["checks"]
        finally:
            http.close()
        return checks

    def backends(self) -> list[int]:
        """Process ids of the server's connections."""
        found = self.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'homeserver%' "
            "AND datname = current_database()"
        )
        return [pid for (pid,) in found]


@pytest.fixture
def scene(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A running server on a fresh database; the parameter is the jump of its clock in seconds."""
    dsn = fresh_database()
    with ServerProcess(tmp_path) as server:
        server.clock_jump = getattr(request, "param", 0.0)
        listener = {"port": server.port, "bind": "127.0.0.1", "resources": ["client", "health"]}
        limits = {"shutdown_timeout": 1.0}
        server.configure({"database": {"dsn": dsn}, "listeners": [listener], "limits": limits})
        server.start()
        yield Scene(server, dsn)
    drop_database(dsn)


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Stop processes for the duration of the block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.1)


def test_batch_that_is_refused_permanently_ends_the_process(scene: Scene) -> None:
    """A supervisor starts the server again; before, it closed its ports and continued to run."""
    scene.execute(REFUSE.format(code=FORBIDDEN))

    with pytest.raises(Refused) as refused:
        scene.send("lost")

    assert refused.value.status == 503
    assert scene.server.wait_for_end(PATIENCE_SECONDS) == 1


def test_server_continues_when_the_disk_has_space_again(scene: Scene) -> None:
    """Queued messages are stored then; meanwhile new ones are refused, and /health says why."""
    scene.execute(REFUSE.format(code=DISK_FULL))
    sent: list[str] = []
    sending = threading.Thread(target=lambda: sent.append(scene.send("patient")), daemon=True)
    sending.start()
    wait_until(lambda: scene.health() == {"database": "ok", "writes": "failing"})
    with pytest.raises(Refused) as refused:
        scene.send("impatient")
    assert refused.value.status == 503

    scene.execute("DROP TRIGGER refuse ON events")
    sending.join(PATIENCE_SECONDS)

    wait_until(lambda: scene.health() == {"database": "ok", "writes": "ok"})
    assert len(sent) == 1
    assert scene.messages() == {sent[0]: "patient"}


def test_server_continues_when_the_database_is_writable_again(scene: Scene) -> None:
    """A database is read-only for a time while another one takes over; no message is lost."""
    name = scene.execute("SELECT current_database()")[0][0]
    scene.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    scene.end_connections()
    wait_until(lambda: scene.health() == {"database": "ok", "writes": "failing"})
    with pytest.raises(Refused) as refused:
        scene.send("during it")
    assert refused.value.status == 503

    with psycopg.connect(scene.dsn, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        statement = f"ALTER DATABASE {name} RESET default_transaction_read_only"
        connection.execute(statement.encode())
    scene.end_connections()

    wait_until(lambda: scene.health() == {"database": "ok", "writes": "ok"})
    event_id = scene.send("after it")
    assert scene.messages()[event_id] == "after it"


def test_nothing_is_lost_where_the_reservation_of_positions_was(scene: Scene) -> None:
    """No acknowledged message is lost; once, ten of ten were acknowledged and none was stored."""
    before = {scene.send(f"before {number}") for number in range(3)}
    scene.server.stop()
    scene.execute("UPDATE server_state SET value = '0' WHERE key = 'reserved_positions'")
    scene.server.start()
    scene.user.close()

    after = {scene.send(f"after {number}") for number in range(10)}

    assert set(scene.messages()) == before | after
    assert len(after) == 10


def test_health_notices_a_database_that_hangs(scene: Scene) -> None:
    """An operator sees that the database hangs, though its connections stay open."""
    assert scene.health() == {"database": "ok", "writes": "ok"}

    with stopped(scene.backends()):
        time.sleep(1)
        begun = time.monotonic()
        assert scene.health() == {"database": "failing", "writes": "failing"}
        assert time.monotonic() - begun < 5

    wait_until(lambda: scene.health() == {"database": "ok", "writes": "ok"})


def test_shutdown_does_not_wait_for_a_database_that_hangs(scene: Scene) -> None:
    """The server drops what it never acknowledged, and the exit status reports the failure."""
    with stopped(scene.backends()):
        sending = threading.Thread(target=_try_to_send, args=(scene,), daemon=True)
        sending.start()
        time.sleep(0.5)

        os.kill(scene.server.pid, signal.SIGTERM)

        assert scene.server.wait_for_end(60) == 1
    sending.join(PATIENCE_SECONDS)


@pytest.mark.parametrize("scene", [-HOUR, HOUR], indirect=True)
def test_long_poll_ends_on_time_when_the_clock_is_set(scene: Scene) -> None:
    """A client that waits for two seconds waits for two seconds, even if the clock is set."""
    user, jump = scene.user, scene.server.clock_jump
    since = user.sync()["next_batch"]
    threading.Timer(0.5, scene.server.jump).start()

    begun = time.monotonic()
    user.sync(since, timeout_ms=2000)
    took = time.monotonic() - begun

    assert 1.9 < took < 10
    sent = user.messages(user.create_room(), None)[0]["origin_server_ts"] / 1000
    assert abs(sent - (time.time() + jump)) < 60


def _try_to_send(scene: Scene) -> None:
    try:
        scene.send("lost")
    except (ConnectionLost, Refused):
        return
