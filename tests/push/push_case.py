"""The setting of tests of pushes: a user with a phone, two others, and a gateway."""

from typing import Any, ClassVar
from urllib.parse import quote

from tests.push.push_gateway import PushGateway, pusher
from tests.support.reactor import pause, until
from tests.support.server import ServerTestCase

QUIET_SECONDS = 0.4


class PushTestCase(ServerTestCase):
    """Alice has a phone, and is in a room with Bob and Carol, who have none."""

    settings: ClassVar[dict[str, Any]] = {"outbound_http": {"allow_private_addresses": True}}

    async def setUp(self) -> None:
        self.gateway = PushGateway()
        self.addCleanup(self.gateway.stop)
        await super().setUp()
        self.alice, self.bob, self.carol = [
            await self.register(name) for name in ("alice", "bob", "carol")
        ]
        self.room = await self.bob.create_room(public=True, name="Kitchen")
        await self.alice.join(self.room)
        await self.carol.join(self.room)

    async def set_pusher(self, pushkey: str = "phone", **more: Any) -> None:
        await self.alice.post("/pushers/set", pusher(self.gateway, pushkey, **more))

    async def pushed(self, number: int) -> list[dict[str, Any]]:
        """What the gateway has accepted, once it is so much."""
        await until(lambda: len(self.gateway.received) >= number)
        return self.gateway.received

    async def assert_no_more(self, number: int) -> None:
        """The gateway gets nothing more than this."""
        await pause(QUIET_SECONDS)
        self.assertEqual(len(self.gateway.received), number, self.gateway.received)

    def is_behind(self) -> bool:
        """Whether the server knows that a gateway does not accept pushes."""
        return self.server.parts.sync.push.pushers.queues.behind > 0

    async def pushkeys(self) -> list[str]:
        """The pushkeys of Alice's pushers."""
        return [each["pushkey"] for each in (await self.alice.get("/pushers"))["pushers"]]

    async def set_rule(self, kind: str, rule_id: str, **rule: Any) -> None:
        """Set a push rule of Alice's."""
        await self.alice.put(f"/pushrules/global/{kind}/{quote(rule_id, safe='')}", rule)
