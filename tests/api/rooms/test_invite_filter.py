"""Invite filtering over the API: at every door, and in everything that shows pending invites."""

from typing import Any

from tests.support.server import ServerTestCase


class InviteFilterTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice, self.bob = await self.register("alice"), await self.register("bob")
        self.room = await self.alice.create_room()

    async def set_filter(self, **content: Any) -> None:
        """Set Bob's filter."""
        path = f"/user/{self.bob.user_id}/account_data/m.invite_permission_config"
        await self.bob.put(path, content)

    async def shown(self) -> list[set[str]]:
        """The rooms of pending invites: in a first sync, and in those of old clients."""
        initial = (await self.bob.sync()).get("rooms", {}).get("invite", {})
        snapshot = await self.bob.get("/initialSync")
        rooms = {each["room_id"] for each in snapshot["rooms"] if each["membership"] == "invite"}
        return [set(initial), rooms]

    async def test_every_door_is_closed_to_a_blocked_user(self) -> None:
        """It would not help to close one of them."""
        await self.set_filter(blocked_users=[self.alice.user_id])
        invite = {"membership": "invite"}

        for attempt in (
            self.alice.invite(self.room, self.bob),
            self.alice.create_room(invite=[self.bob]),
            self.alice.set_state(self.room, "m.room.member", invite, self.bob.user_id),
        ):
            await self.assert_refused("M_INVITE_BLOCKED", attempt, 403)

        self.assertEqual(await self.shown(), [set(), set()])

    async def test_an_ignored_invite_waits_unseen(self) -> None:
        """The inviter sees a pending invite; the invited user sees it without the filter."""
        await self.set_filter(ignored_servers=["example.*"])
        since = (await self.bob.sync())["next_batch"]
        start = (await self.bob.get("/initialSync"))["end"]

        await self.alice.invite(self.room, self.bob)

        member = await self.alice.state(self.room, "m.room.member", self.bob.user_id)
        self.assertEqual(member["membership"], "invite")
        update = await self.bob.sync(since)
        self.assertNotIn(self.room, update.get("rooms", {}).get("invite", {}))
        events = await self.bob.get("/events", **{"from": start, "timeout": 0})
        self.assertEqual([each for each in events["chunk"] if "room_id" in each], [])
        self.assertEqual(await self.shown(), [set(), set()])

        await self.set_filter(ignored_servers=["example.*"], allowed_users=["@al*"])

        self.assertEqual(await self.shown(), [{self.room}, {self.room}])

    async def test_invites_that_are_not_wanted_are_no_notifications(self) -> None:
        """What notified somebody is shown to them."""

        async def notified() -> list[str]:
            listed = (await self.bob.get("/notifications"))["notifications"]
            return [each["event"]["type"] for each in listed]

        await self.set_filter(ignored_users=[self.alice.user_id])
        await self.alice.invite(self.room, self.bob)
        self.assertEqual(await notified(), [])

        await self.set_filter()
        self.assertEqual(await notified(), ["m.room.member"])

        await self.set_filter(blocked_users=[self.alice.user_id])
        self.assertEqual(await notified(), [])

    async def test_a_pending_invite_disappears_when_its_sender_is_blocked(self) -> None:
        """A user who is being flooded with invites wants to be rid of those that are there."""
        await self.alice.invite(self.room, self.bob)
        self.assertEqual(await self.shown(), [{self.room}, {self.room}])

        await self.set_filter(blocked_users=[self.alice.user_id])

        self.assertEqual(await self.shown(), [set(), set()])
        await self.bob.join(self.room)

    async def test_a_filter_does_not_touch_rooms_that_the_user_is_in(self) -> None:
        """It is about invites alone."""
        await self.alice.invite(self.room, self.bob)
        await self.bob.join(self.room)
        await self.set_filter(blocked_servers=["*"])
        await self.alice.say(self.room, "hello")

        rooms = (await self.bob.sync())["rooms"]["join"]

        self.assertIn(self.room, rooms)
