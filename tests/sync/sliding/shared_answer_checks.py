"""Clients for tests of shared answers, and checks that each reader would get the same alone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.sliding_sync.accepted_form import AcceptedBody
from homeserver.protocol.sliding_sync.deployed_form import DeployedBody
from homeserver.protocol.sliding_sync.request import RequestBody, SlidingSyncRequest
from homeserver.protocol.sliding_sync.response import Form, RoomResult
from homeserver.sync.sliding.connection import SlidingConnection
from homeserver.sync.sliding.response_draft import Answer
from homeserver.sync.sliding.responses import Responses
from homeserver.sync.sliding.shared_answers import SharedAnswers
from homeserver.sync.sync_request import SyncRequest
from tests.sync.sync_server import SyncServer


def body_of(
    lists: Mapping[str, Any], extensions: tuple[str, ...] = (), **members: Any
) -> RequestBody:
    """What a request asks for."""
    enabled = {name: {"enabled": True} for name in extensions}
    encoded = msgspec.json.encode({"lists": lists, "extensions": enabled, **members})
    return msgspec.json.decode(encoded, type=DeployedBody).value(len(encoded))


def accepted_body_of(lists: Mapping[str, Any]) -> RequestBody:
    """The same in the accepted form, which has no unread counts."""
    encoded = msgspec.json.encode({"lists": lists})
    return msgspec.json.decode(encoded, type=AcceptedBody).value(len(encoded))


@dataclass(eq=False)
class Client:
    """One connection of a user."""

    caller: Requester
    body: RequestBody
    conn_id: str
    pos: str | None = None

    @property
    def request(self) -> SlidingSyncRequest:
        return SlidingSyncRequest(self.body, self.conn_id, self.pos, 0)


def ageless(results: Mapping[str, RoomResult]) -> dict[str, tuple[bytes, ...]]:
    """The results of rooms as JSON without the ages of their events, which grow."""
    return {
        room_id: tuple(re.sub(rb'"age":\d+', b"", result.encode(form)) for form in Form)
        for room_id, result in results.items()
    }


def assert_same(shared: Answer, alone: Answer) -> None:
    """A shared answer has what one has that was made for the reader, and leads to its state."""
    assert ageless(shared.rooms) == ageless(alone.rooms)
    assert shared.offered == alone.offered
    assert shared.counts == alone.counts
    assert shared.extensions == alone.extensions
    assert shared.is_new is alone.is_new is True


def compare_shared_answers(server: SyncServer) -> None:
    """Have a server make every answer for its reader alone, and compare it with the shared one."""
    sliding_sync: Any = server.sync.sliding.sliding_sync
    sliding_sync._responses = _Compared(server, sliding_sync._shared, sliding_sync._responses)
    sliding_sync._shared = _NothingShared()


class _NothingShared:
    def find(self, *_: object) -> Answer | None:
        return None


class _Compared:
    """In place of `Responses`: makes answers that are to be what is shared."""

    def __init__(self, server: SyncServer, shared: SharedAnswers, responses: Responses) -> None:
        self._queues = server.sync.change_queues
        self._shared = shared
        self._responses = responses
        self.has_nothing = responses.has_nothing

    async def make(
        self, request: SlidingSyncRequest, reader: SyncRequest, connection: SlidingConnection
    ) -> Answer:
        queue, shared = self._queues.loaded(reader.user_id), None
        if queue is not None:
            shared = self._shared.find(request, reader, connection, queue)
        alone = await self._responses.make(request, reader, connection)
        if shared is not None:
            assert_same(shared, alone)
        return alone
