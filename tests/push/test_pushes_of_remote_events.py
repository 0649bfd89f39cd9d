"""Pushes of what users of other servers do: invites, and messages in shared rooms."""

from tests.push.push_gateway import PushGateway, pusher
from tests.support.organisations import FederationTestCase
from tests.support.reactor import until


class RemotePushTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.gateway = PushGateway()
        self.addCleanup(self.gateway.stop)
        self.there = await self.organisation()
        self.here = await self.organisation(outbound_http={"allow_private_addresses": True})
        self.bob = await self.there.register("bob")
        self.alice = await self.here.register("alice")
        await self.alice.post("/pushers/set", pusher(self.gateway))

    async def test_an_invite_of_another_server_is_pushed(self) -> None:
        """With what the other server says of the room; this one is not in it yet."""
        room = await self.bob.create_room(invite=[self.alice], name="Far away")

        await until(lambda: len(self.gateway.received) == 1)

        (notification,) = self.gateway.received
        self.assertEqual(notification["room_id"], room)
        self.assertEqual(notification["room_name"], "Far away")
        self.assertEqual(notification["sender"], self.bob.user_id)
        self.assertEqual(notification["sender_display_name"], "bob")
        self.assertEqual(notification["membership"], "invite")
        self.assertIs(notification["user_is_target"], True)
        self.assertEqual(notification["devices"][0]["tweaks"], {"sound": "default"})
        self.assertEqual(notification["prio"], "high")

    async def test_what_a_dead_gateway_missed_has_remote_invites_and_messages(self) -> None:
        """An invite that was declined meanwhile is not among it."""
        room = await self.bob.create_room(invite=[self.alice])
        await until(lambda: len(self.gateway.received) == 1)
        await self.alice.join(room)
        await self.gateway.stop()
        declined = await self.bob.create_room(invite=[self.alice])
        pending = await self.bob.create_room(invite=[self.alice])
        queues = self.here.server.parts.sync.push.pushers.queues
        await until(lambda: queues.behind == 1)
        await self.alice.leave(declined)
        await self.bob.say(room, "hello")

        self.gateway.start()
        await self.alice.post("/pushers/set", pusher(self.gateway, lang="de"))
        await until(lambda: len(self.gateway.bodies()) == 1)

        events = [each["room_id"] for each in self.gateway.received[1:] if "event_id" in each]
        self.assertEqual(sorted(events), sorted([pending, room]))
