"""What other servers send before this one has stored what they respond to.

A server that signs an invite or a join knows it earlier than the one that requested that.
"""

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred

from tests.support.actors import bodies
from tests.support.fake_server.fake_http import Answer, Handler, Late, Received
from tests.support.organisations import FederationTestCase


class EarlyEventTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.fake()
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.bob = self.there.user("bob")
        self.early: Deferred[Any]

    def act_during(self, operation: str, act: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """The other server acts first, and then responds; `early` is the result of the action."""
        respond: Handler = getattr(self.there._good, operation)

        def handle(request: Received) -> Answer:
            answer = respond(request)
            self.early = Deferred.fromCoroutine(act())
            return Late(answer)

        self.there.answers[operation] = handle

    async def test_invited_bot_joins_at_once(self) -> None:
        """It may be quicker than the response to the invite."""
        room_id = await self.alice.create_room()
        self.act_during(
            "send_invite_v2", lambda: self.there.join(self.here.name, room_id, self.bob)
        )

        await self.alice.post(f"/rooms/{quote(room_id)}/invite", {"user_id": self.bob})

        await self.early
        member = await self.alice.state(room_id, "m.room.member", self.bob)
        self.assertEqual(member["membership"], "join")

    async def test_welcome_of_a_quick_bot(self) -> None:
        """A message of the moment in which this server joins is not lost."""
        room = self.there.create_room("11", creator="bob")
        self.act_during(
            "send_join_v2",
            lambda: self.there.send(self.here.name, [room.say(self.bob, "welcome")]),
        )

        await self.alice.join(room.room_id, via=[self.there.name])

        status, response = await self.early
        self.assertEqual(status, 200)
        self.assertEqual([*response["pdus"].values()], [{}])
        said = bodies((await self.alice.messages(room.room_id))["chunk"])
        self.assertEqual(said, ["welcome"])
