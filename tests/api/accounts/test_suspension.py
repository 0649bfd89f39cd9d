"""Suspended accounts: what they can still do, and what not."""

from tests.support.server import ServerTestCase


class SuspensionTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.admin = await self.register_admin("admin")
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.room = await self.alice.create_room(public=True)
        await self.bob.join(self.room)
        self.of_bob = await self.bob.say(self.room, "buy this")
        self.of_alice = await self.alice.say(self.room, "no")
        levels = await self.alice.state(self.room, "m.room.power_levels")
        levels["users"][self.bob.user_id] = 50
        await self.alice.set_state(self.room, "m.room.power_levels", levels)
        self.other = await self.alice.create_room(public=True)
        self.invited = await self.alice.create_room(invite=[self.bob])
        await self.suspend(True)

    async def suspend(self, suspended: bool) -> None:
        path = f"/_matrix/client/v1/admin/suspend/{self.bob.user_id}"
        await self.admin.request("PUT", path, {"suspended": suspended})

    async def test_nothing_new_comes_from_a_suspended_user(self) -> None:
        """Others have peace until the matter is settled."""
        bob, room = self.bob, self.room
        member = f"/rooms/{room}/state/m.room.member/{bob.user_id}"
        attempts = [
            bob.say(room, "buy that"),
            bob.send(room, "m.reaction", {}),
            bob.set_state(room, "m.room.name", {"name": "Shop"}),
            bob.put(member, {"membership": "join", "displayname": "Shop"}),
            bob.redact(room, self.of_alice),
            bob.join(self.other),
            bob.join(self.invited),
            bob.knock(self.other),
            bob.invite(room, self.admin),
            bob.create_room(),
            bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Shop"}),
            bob.delete(f"/profile/{bob.user_id}/displayname"),
        ]

        for attempt in attempts:
            await self.assert_refused("M_USER_SUSPENDED", attempt, 403)

    async def test_a_suspended_user_reads_leaves_and_redacts(self) -> None:
        """A suspended user keeps the history, and can leave rooms."""
        bob, room = self.bob, self.room
        await bob.sync()
        await bob.messages(room)
        await bob.redact(room, self.of_bob)
        member = f"/rooms/{self.invited}/state/m.room.member/{bob.user_id}"
        await bob.put(member, {"membership": "leave"})
        await bob.leave(room)

        members = await self.alice.members(self.invited)
        self.assertEqual(members[bob.user_id], "leave")

    async def test_a_suspended_user_manages_their_own_account(self) -> None:
        """Devices, settings and reports are allowed; and the account can be deactivated."""
        bob = self.bob
        phone = await self.log_in(bob)
        await phone.put(f"/user/{bob.user_id}/account_data/org.example", {"a": 1})
        await phone.post(f"/rooms/{self.room}/report", {"reason": "They started it"})
        await phone.post("/logout")
        auth = {"type": "m.login.password", "password": "the password of bob"}
        await bob.post("/account/deactivate", {"auth": auth})

        self.assertEqual((await self.alice.members(self.room))[bob.user_id], "leave")

    async def test_the_end_of_a_suspension_applies_at_once(self) -> None:
        """The user need not log in again."""
        await self.suspend(False)

        await self.bob.say(self.room, "thank you")
