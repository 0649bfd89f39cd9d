"""Connections while the database is unavailable: nothing grows, and nothing is forgotten."""

from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from twisted.internet.task import Clock

from homeserver.accounts.sessions.devices import DevicesRemoved
from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Unavailable
from homeserver.protocol.sliding_sync.request import UnknownPos
from homeserver.storage.accounts.sliding_sync_connections import (
    delete_connections,
    find_connection,
    save_connections,
)
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sliding import connections
from homeserver.sync.sliding.connection import OfferedState, SentRoom, SlidingConnection
from homeserver.sync.sliding.connections import SlidingConnections
from homeserver.sync.sync_request import SyncRequest


class FakeDatabase:
    """Keeps what is saved, and notes what is deleted, while it is available."""

    def __init__(self) -> None:
        self.is_available = True
        self.saved: dict[tuple[str, ...], bytes] = {}
        self.deleted: list[tuple[list[tuple[str, str]], int]] = []

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        if not self.is_available:
            raise Unavailable("The database is unavailable")
        if function is save_connections:
            self.saved.update({tuple(row[:3]): row.sent for row in args[0]})
        elif function is find_connection:
            return self.saved.get(args)
        elif function is delete_connections:
            self.deleted.append(args)
        return None


class Scene:
    """Connections of many devices with 1,000 rooms each, a memory for ten of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connections, "MAX_BYTES", 10 * 130_000)
        monkeypatch.setattr(connections, "MAX_EVICTED_BYTES", 20 * 130_000)
        self.db = FakeDatabase()
        self.connections = SlidingConnections(cast("Any", self.db), Clock())

    def respond(self, number: int) -> str:
        """Open a connection, and send a first response; gives its `pos`."""
        request = request_of(number)
        opened = run(self.connections.open(request, "list", None))
        rooms = dict.fromkeys(range(1, 1_001), SentRoom(7))
        pos = opened.offer(OfferedState(SyncToken(9), rooms, None, None))
        self.connections.changed(request, "list", is_new=True)
        return cast("str", pos)

    def open(self, number: int, pos: str) -> SlidingConnection:
        return cast(
            "SlidingConnection", run(self.connections.open(request_of(number), "list", pos))
        )

    def save(self) -> None:
        run(self.connections.save())


def request_of(number: int) -> SyncRequest:
    return SyncRequest(Requester("@alice:test", f"PHONE{number}"))


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that does not wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_evicted_connections_continue_before_they_are_stored(scene: Scene) -> None:
    """A client notices nothing of a cache that was full for a moment."""
    scene.db.is_available = False
    positions = [scene.respond(number) for number in range(25)]

    assert len(scene.connections) < 12
    assert len(scene.open(0, positions[0]).state.rooms) == 1_000


def test_evicted_connections_are_bounded_while_the_database_is_unavailable(scene: Scene) -> None:
    """A long failure of the database costs some clients a new beginning, and no memory."""
    scene.db.is_available = False
    positions = [scene.respond(number) for number in range(200)]
    scene.db.is_available = True
    scene.save()

    assert 20 <= len(scene.db.saved) <= 32
    assert scene.open(199, positions[199])
    with pytest.raises(UnknownPos):
        scene.open(0, positions[0])


def test_evicted_connections_are_stored(scene: Scene) -> None:
    """What did not fit into memory is read again from the database."""
    positions = [scene.respond(number) for number in range(25)]
    scene.save()
    scene.save()

    assert len(scene.db.saved) == 25
    for number in range(25):
        assert len(scene.open(number, positions[number]).state.rooms) == 1_000


def test_failed_deletions_are_repeated(scene: Scene) -> None:
    """What belongs to a removed device does not stay because the database was unavailable once."""
    scene.respond(1)
    scene.connections.apply([DevicesRemoved(5, "@alice:test", ("PHONE2",))])
    scene.db.is_available = False
    for _ in range(2):
        with pytest.raises(Unavailable):
            scene.save()
    scene.db.is_available = True
    scene.save()
    scene.save()

    assert sorted(scene.db.deleted, key=str) == [
        ([("@alice:test", "PHONE1")], connections.MAX_OF_DEVICE),
        ([("@alice:test", "PHONE2")], 0),
    ]


def test_one_run_saves_each_connection_once(scene: Scene) -> None:
    """Clients that are busy all the time do not keep the task busy all the time."""
    scene.respond(1)
    runs = 0
    original = scene.db.run

    async def change_and_run(function: Callable[..., Any], *args: Any) -> Any:
        nonlocal runs
        runs += function is save_connections
        scene.respond(1)
        return await original(function, *args)

    scene.db.run = change_and_run  # type: ignore[method-assign]
    scene.save()

    assert runs == 1
