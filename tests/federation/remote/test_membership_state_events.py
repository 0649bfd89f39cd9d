"""Memberships that clients send as state events, where another server is involved."""

from urllib.parse import quote

from tests.support.organisations import FederationTestCase


class MembershipsAsStateTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.fake()
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.mallory = self.there.user("mallory")

    async def test_the_other_server_signs_the_invite(self) -> None:
        """Bots set memberships as any other state; their invites arrive like those of apps."""
        room = await self.alice.create_room()
        content = {"membership": "invite", "reason": "come in", "org.example.by": "bot"}
        path = f"/rooms/{quote(room)}/state/m.room.member/{quote(self.mallory)}"

        event_id = (await self.alice.put(path, content))["event_id"]

        invite = self.there.invites[room]
        self.assertEqual((invite.event_id, invite.content), (event_id, content))
        member = await self.alice.state(room, "m.room.member", self.mallory)
        self.assertEqual(member, content)

    async def test_an_invalid_user_id_is_not_invited(self) -> None:
        """The client gets an error, and no server gets a request."""
        room = await self.alice.create_room()

        for state_key in ("mallory", f"mallory:{self.there.name}"):
            path = f"/rooms/{quote(room)}/state/m.room.member/{quote(state_key)}"
            attempt = self.alice.put(path, {"membership": "invite"})
            await self.assert_refused("M_INVALID_PARAM", attempt, 400)
        self.assertEqual(self.there.received, [])

    async def test_a_user_without_the_power_to_invite_does_not(self) -> None:
        """The auth rules are checked before the other server is asked."""
        room = await self.alice.create_room(public=True)
        bob = await self.here.register("bob")
        await bob.join(room)
        path = f"/rooms/{quote(room)}/state/m.room.member/{quote(self.mallory)}"

        attempt = bob.put(path, {"membership": "invite"})

        await self.assert_refused("M_FORBIDDEN", attempt, 403)
        self.assertEqual(self.there.received, [])

    async def test_a_room_that_was_left_is_joined_through_another_server(self) -> None:
        """The stored state of the room is out of date, and admits no user."""
        room = self.there.create_room("11").room_id
        await self.alice.join(room, via=[self.there.name])
        await self.alice.leave(room)
        self.there.received.clear()
        content = {"membership": "join", "displayname": "Alice again"}

        event_id = await self.alice.set_state(room, "m.room.member", content, self.alice.user_id)

        operations = [one.operation for one in self.there.received if "join" in one.operation]
        self.assertEqual(operations, ["make_join", "send_join_v2"])
        self.assertIn(event_id, self.there.rooms[room].events)
        member = await self.alice.state(room, "m.room.member", self.alice.user_id)
        self.assertEqual(member, content)

    async def test_a_knock_and_its_end_as_state_go_to_another_server(self) -> None:
        """As by the endpoints for them."""
        room = self.there.create_room("11", join_rule="knock").room_id
        path = f"/rooms/{quote(room)}/state/m.room.member/{quote(self.alice.user_id)}"
        await self.alice.put(path, {"membership": "knock", "reason": "tea"})
        (knock,) = (await self.alice.sync())["rooms"]["knock"]

        await self.alice.put(path, {"membership": "leave"})

        self.assertEqual(knock, room)
        operations = [one.operation for one in self.there.received]
        self.assertEqual(operations[-2:], ["make_leave", "send_leave_v2"])
        self.assertEqual((await self.alice.sync()).get("rooms", {}).get("knock", {}), {})
