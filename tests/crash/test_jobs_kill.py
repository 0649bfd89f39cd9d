"""Kill -9 during background jobs: each continues with its last step, and nothing is half done."""

import json
import random
import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.clients.plain_client import User, register
from tests.support.postgres import drop_database, fresh_database, stored_json
from tests.support.process import SHARED_SECRET, ServerProcess, running_server

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
MESSAGES = 450  # more than two steps examine
PATIENCE_SECONDS = 200.0


class Scene:
    """A server on a database of its own, and a user with a room full of messages."""

    def __init__(self, server: ServerProcess, dsn: str) -> None:
        self.server = server
        self.dsn = dsn
        self.user: User = register(server.url, SHARED_SECRET, "alice")
        self.room_id = self.user.create_room()
        for number in range(MESSAGES):
            self.user.send(self.room_id, f"message {number}", str(number))
        ((self.room_nid,),) = self.query("SELECT nid FROM names WHERE name = %s", self.room_id)

    def query(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """The rows of a query."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def create_job(self, kind: str, **arguments: object) -> None:
        """Create a job for the room."""
        values = json.dumps({"room": self.room_nid, "room_id": self.room_id, **arguments})
        self.query(
            "INSERT INTO background_jobs (kind, arguments, state, created_at, updated_at)"
            " VALUES (%s, %s, 'waiting', 0, 0)",
            kind,
            values,
        )

    def kill_until_done(self, seed: int) -> int:
        """Kill the server again and again until the job has ended; gives the number of kills."""
        chance, kills = random.Random(seed), 0
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.query(
            "SELECT job_id FROM background_jobs WHERE state IN ('waiting', 'running')"
        ):
            assert time.monotonic() < deadline, "the job does not end"
            if kills < 4:
                self.server.kill()
                self.server.start()
                kills += 1
            time.sleep(chance.uniform(0.0, 0.6))
        assert self.query("SELECT state, error FROM background_jobs") == [("done", None)]
        return kills

    def texts(self) -> int:
        """How many messages with their text the database has."""
        return sum(b'"message ' in event for event in stored_json(self.dsn))


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A room full of messages."""
    dsn = fresh_database()
    with running_server({"database": {"dsn": dsn}}) as server:
        yield Scene(server, dsn)
    drop_database(dsn)


def test_a_purge_of_history_survives_kills(scene: Scene) -> None:
    """All that was to be deleted is, and the room works on."""
    older_than = int(time.time() * 1000) + 3_600_000
    scene.create_job("purge_history", before=None, older_than=older_than, with_local=True)

    kills = scene.kill_until_done(1)
    user = scene.user
    user = User(scene.server.url, user.user_id, user.device_id, user.token or "")
    user.send(scene.room_id, "after", "after")

    assert kills > 0
    assert scene.texts() == 0
    contents = [each["content"] for each in user.messages(scene.room_id, None)]
    assert [content["body"] for content in contents if "body" in content] == ["after"]
    assert scene.server.new_errors() == []


def test_the_deletion_of_a_room_survives_kills(scene: Scene) -> None:
    """No row of the room is left, wherever the server was killed."""
    scene.create_job("delete_room", block=False)

    kills = scene.kill_until_done(2)

    assert kills > 2
    for table in ("events", "memberships", "rooms", "receipts", "current_states"):
        rows = scene.query(f"SELECT room FROM {table} WHERE room = %s", scene.room_nid)
        assert rows == [], table
    assert scene.server.new_errors() == []
