"""Rescinded invites, and false claims that an invite was rescinded."""

from federation.receiving import rescinded_invites
from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.support.actors import Actor
from tests.support.organisations import FederationTestCase
from tests.support.room_graph import RoomGraph


class RescindedInviteTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.patch(rescinded_invites, "PROPAGATION_WAIT_SECONDS", 0.3)
        self.here = await self.organisation()
        self.there = await self.organisation()
        self.alice = await self.here.register("alice")
        self.bob = await self.there.register("bob")
        self.room = await self.alice.create_room(public=True)

    async def test_a_stranger_cannot_rescind_an_invite(self) -> None:
        """A server that is not in the room cannot end an invite that it knows of."""
        evil = await self.fake()
        await self.alice.invite(self.room, self.bob)
        graph = RoomGraph(ROOM_VERSIONS["12"], self.room, evil.name, evil.key)
        for membership in ("leave", "ban"):
            event = graph.build(
                "m.room.member",
                {"membership": membership},
                sender=evil.user("mallory"),
                state_key=self.bob.user_id,
                after=[],
                auth_events=[],
            )
            status, _ = await evil.send(self.there.name, [event])
            self.assertEqual(status, 200)

        self.assertTrue(await self.is_invited(self.bob))
        await self.bob.join(self.room)

    async def test_a_moderator_of_a_third_server_rescinds_an_invite(self) -> None:
        """The inviter's server confirms it, once it has received the event."""
        third = await self.organisation()
        carol = await third.register("carol")
        levels = await self.alice.state(self.room, "m.room.power_levels")
        levels["users"] = {carol.user_id: 50}
        await self.alice.set_state(self.room, "m.room.power_levels", levels)
        await carol.join(self.room, via=[self.here.name])
        await self.alice.invite(self.room, self.bob)
        since = None
        while (await carol.members(self.room)).get(self.bob.user_id) != "invite":
            since = (await carol.sync(since, timeout_ms=500))["next_batch"]

        await carol.kick(self.room, self.bob)

        since = None
        while await self.is_invited(self.bob):
            since = (await self.bob.sync(since, timeout_ms=500))["next_batch"]
        await self.assert_refused(
            "M_NOT_FOUND", self.bob.get(f"/rooms/{self.room}/event/$unknown"), 404
        )

    async def is_invited(self, actor: Actor) -> bool:
        """Whether a user's client shows an invite."""
        rooms = (await actor.sync()).get("rooms", {})
        return self.room in rooms.get("invite", {})
