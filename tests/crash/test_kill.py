"""Kill -9 under load: acknowledged messages are stored exactly once, in the same order.

A request is answered only after its event is durable, and a transaction id names one event
permanently; so a client that repeats requests without a response neither loses nor doubles a
message.

Spec: https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.clients.plain_client import User, register
from tests.crash.senders import Reader, Sender, read_since
from tests.support.process import SHARED_SECRET, ServerProcess, running_server

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
ROOMS = 3
SENDERS_PER_ROOM = 3
LOAD_SECONDS = 1.5
RECOVERY_SECONDS = 30.0
LATEST = 50  # messages without a response yet


@dataclass
class Scene:
    """A server under load: senders in several rooms, and one user who is in all of them."""

    server: ServerProcess
    witness: User
    rooms: list[str]
    senders: list[Sender]
    reader: Reader
    first_token: str

    def acknowledged(self) -> int:
        """The number of messages acknowledged so far."""
        return sum(len(sender.acknowledged) for sender in self.senders)

    def begin(self) -> None:
        """Start the senders and the reader."""
        for client in (*self.senders, self.reader):
            client.start()

    def calm_down(self) -> None:
        """Let the senders finish their requests, and the reader catch up."""
        for sender in self.senders:
            sender.stop()
        self.reader.stop()
        failures = [one.failure for one in (*self.senders, self.reader) if one.failure]
        assert failures == [], self.server.last_output()
        # Its connection may be one to the server that was killed.
        self.witness.close()
        self.reader.since = read_since(self.witness, self.reader.since, self.reader.seen)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A fresh server with its users and rooms, before the load."""
    with running_server() as server:
        witness = register(server.url, SHARED_SECRET, "witness")
        rooms = [witness.create_room(preset="public_chat") for _ in range(ROOMS)]
        senders = []
        for number in range(ROOMS * SENDERS_PER_ROOM):
            user = register(server.url, SHARED_SECRET, f"sender{number}")
            user.join(rooms[number % ROOMS])
            senders.append(Sender(user, rooms[number % ROOMS]))
        token = witness.sync()["next_batch"]
        reading = User(server.url, witness.user_id, witness.device_id, witness.token or "")
        yield Scene(server, witness, rooms, senders, Reader(reading, token), token)


def kill_server(server: ServerProcess) -> None:
    """Kill the server process and start it again."""
    server.kill()
    server.start()


def kill_database(server: ServerProcess) -> None:
    """Kill the database's main process; the server has to restart it by itself."""
    before = server.database_pid()
    server.kill_database()
    deadline = time.monotonic() + RECOVERY_SECONDS
    while server.database_pid() in (None, before):
        assert time.monotonic() < deadline, "the server did not restart its database"
        time.sleep(0.05)


def kill_both(server: ServerProcess) -> None:
    """Kill both, as a power failure would."""
    server.kill_database()
    server.kill()
    server.start()


@pytest.mark.parametrize("crash", [kill_server, kill_database, kill_both])
def test_acknowledged_messages_survive_exactly_once(
    scene: Scene, crash: Callable[[ServerProcess], None]
) -> None:
    """No sender loses an acknowledged message, and no reader gets one twice."""
    run_through(scene, crash)

    for room_id in scene.rooms:
        history = messages_of(scene, room_id)
        event_ids = {body: event_id for event_id, body in history}
        sent = {
            body: event_id
            for sender in scene.senders
            if sender.room_id == room_id
            for body, event_id in sender.acknowledged.items()
        }
        assert len(history) == len(event_ids)
        assert event_ids == sent
        for sender in scene.senders:
            own = [body for _, body in history if body.startswith(sender.user.user_id + " ")]
            assert own == sorted(own)


def test_reader_across_crashes_sees_each_message_once(scene: Scene) -> None:
    """A client that resumes from its token after each crash gets no gap and no duplicate."""
    run_through(scene, kill_server)

    for room_id in scene.rooms:
        seen = [(event_id, body) for room, event_id, body in scene.reader.seen if room == room_id]
        assert seen == messages_of(scene, room_id)


def test_token_from_before_the_crash_gives_exactly_the_rest(scene: Scene) -> None:
    """A phone that was off during the crash catches up from the token it had."""
    run_through(scene, kill_server)

    rest: list[tuple[str, str, str]] = []
    read_since(scene.witness, scene.first_token, rest)
    for room_id in scene.rooms:
        seen = [(event_id, body) for room, event_id, body in rest if room == room_id]
        assert seen == messages_of(scene, room_id)


def test_retried_transaction_gives_the_same_event(scene: Scene) -> None:
    """A client that got no response repeats the request after the crash, and doubles nothing."""
    scene.begin()
    time.sleep(LOAD_SECONDS)
    kill_server(scene.server)
    scene.calm_down()
    before = {room_id: messages_of(scene, room_id) for room_id in scene.rooms}

    assert sum(sender.interrupted for sender in scene.senders) > 0
    for sender in scene.senders:
        for body in [*sender.acknowledged][-LATEST:]:
            assert sender.send_again(body) == sender.acknowledged[body]

    assert {room_id: messages_of(scene, room_id) for room_id in scene.rooms} == before


def run_through(scene: Scene, crash: Callable[[ServerProcess], None]) -> None:
    """Load, a crash, load, another crash, load, calm."""
    scene.begin()
    for _ in range(2):
        time.sleep(LOAD_SECONDS)
        before = scene.acknowledged()
        assert before > 0, scene.server.last_output()
        crash(scene.server)
    time.sleep(LOAD_SECONDS)
    scene.calm_down()
    assert scene.acknowledged() > before, "nothing was sent after the crash"


def messages_of(scene: Scene, room_id: str) -> list[tuple[str, str]]:
    """(event id, body) of all messages in a room's history, oldest first."""
    events = scene.witness.messages(room_id, None)
    return [
        (event["event_id"], event["content"]["body"])
        for event in reversed(events)
        if event["type"] == "m.room.message"
    ]
