"""A client of sliding sync for tests: one connection of an actor, in either form."""

from typing import Any

from homeserver.protocol.proposals.unstable_names import SLIDING_SYNC
from tests.support.actors import Actor
from tests.support.server import ServerTestCase

DEPLOYED_PATH = f"/_matrix/client/unstable/{SLIDING_SYNC}/sync"
ACCEPTED_PATH = "/_matrix/client/v4/sync"


def window(
    start: int = 0,
    end: int = 19,
    *,
    timeline_limit: int = 10,
    required_state: Any = (),
    **filters: Any,
) -> dict[str, Any]:
    """A list in the deployed form."""
    body: dict[str, Any] = {
        "ranges": [[start, end]],
        "timeline_limit": timeline_limit,
        "required_state": [*required_state],
    }
    return body | ({"filters": filters} if filters else {})


class SlidingClient:
    """One connection in the deployed form. `body` is what it sends with each request."""

    def __init__(self, actor: Actor, conn_id: str = "main", **body: Any) -> None:
        self.actor = actor
        self.pos: str | None = None
        self.body: dict[str, Any] = {"conn_id": conn_id, "lists": {"all": window()}} | body

    async def sync(self, *, timeout_ms: int = 0, pos: str | None = None, **body: Any) -> Any:
        """The response to the next request, with the members of `body` from now on."""
        self.body |= body
        query: dict[str, Any] = {"timeout": timeout_ms}
        pos = self.pos if pos is None else pos
        if pos is not None:
            query["pos"] = pos
        response = await self.actor.request("POST", DEPLOYED_PATH, self.body, query)
        self.pos = response["pos"]
        return response


class SlidingTestCase(ServerTestCase):
    """A server with two users."""

    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")


def texts(room: Any) -> list[str]:
    """The bodies of the messages in a room's timeline."""
    return [
        event["content"].get("body")
        for event in room.get("timeline", [])
        if event["type"] == "m.room.message"
    ]
