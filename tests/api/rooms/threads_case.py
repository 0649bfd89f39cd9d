"""A test case with two users in a room with a thread, who may subscribe to it."""

from typing import Any, ClassVar
from urllib.parse import quote

from tests.support.actors import Actor
from tests.support.refused import Refused
from tests.support.server import ServerTestCase

UNSTABLE = "/_matrix/client/unstable"


class ThreadsTestCase(ServerTestCase):
    """Alice and Bob are in a room with a thread."""

    settings: ClassVar[dict[str, Any]] = {"threads": {"subscriptions": True}}

    async def setUp(self) -> None:
        await super().setUp()
        self.alice, self.bob = await self.register("alice"), await self.register("bob")
        self.room = await self.alice.create_room(public=True)
        await self.bob.join(self.room)
        self.root = await self.alice.say(self.room, "root")

    async def reply(self, by: Actor, root: str | None = None, **content: Any) -> str:
        """Send a message in a thread; gives its id."""
        relation = {"rel_type": "m.thread", "event_id": root or self.root}
        content = {"msgtype": "m.text", "body": "reply", "m.relates_to": relation, **content}
        return await by.send(self.room, "m.room.message", content)

    def path(self, root: str | None = None) -> str:
        room, thread = quote(self.room, safe=""), quote(root or self.root, safe="")
        return f"{UNSTABLE}/io.element.msc4306/rooms/{room}/thread/{thread}/subscription"

    async def subscribe(self, by: Actor, cause: str | None = None, root: str | None = None) -> Any:
        body = {} if cause is None else {"automatic": cause}
        return await by.request("PUT", self.path(root), body)

    async def unsubscribe(self, by: Actor, root: str | None = None) -> Any:
        return await by.request("DELETE", self.path(root))

    async def subscription(self, by: Actor, root: str | None = None) -> Any:
        """The subscription; `None` if there is none."""
        try:
            return await by.request("GET", self.path(root))
        except Refused as refused:
            self.assertEqual((refused.status, refused.errcode), (404, "M_NOT_FOUND"))
            return None

    async def changes(self, by: Actor, **query: Any) -> Any:
        path = f"{UNSTABLE}/io.element.msc4308/thread_subscriptions"
        return await by.request("GET", path, query={"dir": "b", **query})
