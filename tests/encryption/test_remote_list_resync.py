"""Fetching device lists in the background: in which order, how many, and after failures."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.encryption.remote import remote_list_resync
from homeserver.encryption.remote.remote_keys_port import KeysUnavailable
from homeserver.encryption.remote.remote_list_resync import (
    MAX_FAILURES,
    MAX_SERVERS_AT_ONCE,
    RETRIES,
    RemoteListResync,
)


class Servers:
    """Records the users whose lists are fetched; `answer` ends the oldest request."""

    def __init__(self) -> None:
        self.clock = Clock()
        unused: Any = None
        self.resync = RemoteListResync(unused, self.refresh, self.clock)
        self.asked: list[str] = []
        self._waiting: list[Deferred[bool]] = []

    async def refresh(self, user_id: str) -> bool:
        """A request that waits."""
        self.asked.append(user_id)
        waiting: Deferred[bool] = Deferred()
        self._waiting.append(waiting)
        return await waiting

    def answer(self, *, is_current: bool = True) -> None:
        """End the oldest request."""
        self._waiting.pop(0).callback(is_current)

    def fail(self) -> None:
        """End the oldest request without an answer."""
        self._waiting.pop(0).errback(KeysUnavailable(503, "no"))


def test_a_list_is_fetched_once() -> None:
    """However many updates of it were missed before, or while, it is fetched."""
    servers = Servers()
    for _ in range(3):
        servers.resync.begin("@a:x")
    servers.answer()
    assert servers.asked == ["@a:x"]

    servers.resync.begin("@a:x")
    assert servers.asked == ["@a:x"] * 2


def test_each_server_gets_one_request_at_a_time() -> None:
    """And only some servers do at the same time."""
    servers = Servers()
    for number in range(3):
        for server in range(MAX_SERVERS_AT_ONCE + 2):
            servers.resync.begin(f"@{number}:{server}")
    assert servers.asked == [f"@0:{server}" for server in range(MAX_SERVERS_AT_ONCE)]

    for _ in range(3 * (MAX_SERVERS_AT_ONCE + 2)):
        servers.answer()
    assert len(servers.asked) == len({*servers.asked}) == 3 * (MAX_SERVERS_AT_ONCE + 2)


def test_a_failure_is_followed_by_a_pause() -> None:
    """Another user is next; a reachable server is asked at once."""
    servers = Servers()
    servers.resync.begin("@a:x")
    servers.resync.begin("@b:x")
    servers.fail()
    servers.clock.advance(RETRIES.pause(1) - 0.1)
    assert servers.asked == ["@a:x"]

    servers.clock.advance(0.2)
    servers.answer(is_current=False)
    assert servers.asked == ["@a:x", "@b:x"]

    servers.resync.server_reachable("y")
    servers.resync.server_reachable("x")
    assert servers.asked == ["@a:x", "@b:x", "@a:x"]


def test_a_server_that_always_fails_is_given_up() -> None:
    """The next client that asks has the list fetched."""
    servers = Servers()
    servers.resync.begin("@a:x")
    for _ in range(MAX_FAILURES):
        servers.fail()
        servers.clock.advance(RETRIES.pause(MAX_FAILURES))
    assert len(servers.asked) == MAX_FAILURES

    servers.resync.begin("@a:x")
    assert len(servers.asked) == MAX_FAILURES + 1


def test_so_many_wait_at_most(monkeypatch: Any) -> None:
    """Nobody can fill the memory; those who were served make room."""
    monkeypatch.setattr(remote_list_resync, "MAX_USERS", 2)
    servers = Servers()
    for name in "abc":
        servers.resync.begin(f"@{name}:x")
    for _ in range(2):
        servers.answer()
    assert servers.asked == ["@a:x", "@b:x"]

    servers.resync.begin("@c:x")
    assert servers.asked == ["@a:x", "@b:x", "@c:x"]


def test_after_the_stop_nothing_is_fetched() -> None:
    """Neither what waits, nor what comes."""
    servers = Servers()
    servers.resync.begin("@a:x")
    servers.fail()
    servers.resync.stop()
    servers.resync.begin("@b:x")
    servers.clock.advance(RETRIES.pause(1))

    assert servers.asked == ["@a:x"]
    assert servers.clock.getDelayedCalls() == []
