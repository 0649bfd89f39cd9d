"""After a restart all clients return at once: each is served in its turn, and none is refused."""

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.sliding_sync.request import RequestBody, SlidingSyncRequest
from homeserver.protocol.sliding_sync.response import ExtensionResults
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sliding.connection import OfferedState, SlidingConnection
from homeserver.sync.sliding.response_draft import Answer
from homeserver.sync.sliding.sliding_sync import CONCURRENT_RETURNS, SlidingSync
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.user_change_queues import UserChangeQueue

CLIENTS = 1_000
REQUEST = SlidingSyncRequest(RequestBody(), "list", None, 30_000)


class Server:
    """Everything around `SlidingSync`, for users of whom nothing is in memory."""

    def __init__(self) -> None:
        self.running: list[Deferred[None]] = []
        self.most = 0
        self.loaded_queues: dict[str, UserChangeQueue] = {}
        anything = cast("Any", self)
        self.sliding_sync = SlidingSync(
            anything, anything, anything, anything, anything, anything, anything, Clock()
        )

    async def build_request(self, caller: Requester, *, connection: str) -> SyncRequest:
        return SyncRequest(caller, connection=connection)

    def received(self, reader: SyncRequest, config: object) -> None: ...

    def start_over(self, reader: SyncRequest) -> None: ...

    def changed(self, reader: SyncRequest, conn_id: str, *, is_new: bool) -> None: ...

    async def open(self, reader: SyncRequest, conn_id: str, pos: str | None) -> SlidingConnection:
        return SlidingConnection(1)

    def loaded(self, user_id: str) -> UserChangeQueue | None:
        return self.loaded_queues.get(user_id)

    async def queue_of(self, user_id: str) -> UserChangeQueue:
        return self.loaded_queues.setdefault(user_id, UserChangeQueue(user_id, 1))

    def find(self, *_: object) -> Answer | None:
        return None

    def has_nothing(self, *_: object) -> bool:
        return False

    async def make(self, *_: object) -> Answer:
        running: Deferred[None] = Deferred()
        self.running.append(running)
        self.most = max(self.most, len(self.running))
        await running
        return Answer({}, {}, ExtensionResults(), OfferedState(SyncToken(1), {}, None, None), False)

    def finish_all(self) -> int:
        """Finish the responses, and those that are begun then; gives their number."""
        finished = 0
        while self.running:
            self.running.pop(0).callback(None)
            finished += 1
        return finished


def test_returning_users_are_served_a_few_at_a_time() -> None:
    """A thousand clients at once make no thousand responses at once, and all get theirs."""
    server, responses = Server(), []
    for number in range(CLIENTS):
        caller = Requester(f"@user{number}:test", "PHONE")
        waiting = Deferred.fromCoroutine(server.sliding_sync.sync(caller, REQUEST, 30))
        waiting.addCallback(responses.append)
    server.finish_all()

    assert server.most == CONCURRENT_RETURNS
    assert len(responses) == CLIENTS


def test_client_that_gives_up_leaves_its_turn_to_others() -> None:
    """Clients that time out while they wait cost nothing."""
    server = Server()
    waiting = [
        Deferred.fromCoroutine(
            server.sliding_sync.sync(Requester(f"@user{number}:test", "PHONE"), REQUEST, 30)
        )
        for number in range(3 * CONCURRENT_RETURNS)
    ]
    for each in waiting[CONCURRENT_RETURNS : 2 * CONCURRENT_RETURNS]:
        each.addErrback(lambda failure: failure.trap(CancelledError))
        each.cancel()
    served = server.finish_all()

    assert served == 2 * CONCURRENT_RETURNS


def test_user_in_memory_does_not_wait_for_those_who_return() -> None:
    """Clients that were there all the time notice nothing of a crowd that returns."""
    server, responses = Server(), []
    for number in range(CLIENTS):
        caller = Requester(f"@user{number}:test", "PHONE")
        Deferred.fromCoroutine(server.sliding_sync.sync(caller, REQUEST, 30))
    server.loaded_queues["@here:test"] = UserChangeQueue("@here:test", 1)
    here = Deferred.fromCoroutine(
        server.sliding_sync.sync(Requester("@here:test", "PHONE"), REQUEST, 30)
    )
    here.addCallback(responses.append)
    server.running.pop().callback(None)

    assert len(responses) == 1
    server.finish_all()
