"""Changes of an account, and their effects in its rooms."""

from typing import Any

from tests.support.actors import Actor
from tests.support.server import ServerTestCase


class AccountInRoomsTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.room = await self.alice.create_room(public=True)
        await self.bob.join(self.room)

    async def member(self, actor: Actor, room: str | None = None) -> Any:
        """A member event, as Alice sees it."""
        return await self.alice.state(room or self.room, "m.room.member", actor.user_id)

    async def set_profile(self, actor: Actor, field: str, value: str) -> None:
        await actor.put(f"/profile/{actor.user_id}/{field}", {field: value})

    async def deactivate(self, actor: Actor, **body: Any) -> None:
        """Close an account."""
        name = actor.user_id[1:].partition(":")[0]
        auth = {"type": "m.login.password", "password": f"the password of {name}"}
        await actor.post("/account/deactivate", {"auth": auth, **body})

    async def test_a_new_profile_is_in_the_rooms(self) -> None:
        """Name and avatar change at once, also in syncs."""
        since = (await self.alice.sync())["next_batch"]

        await self.set_profile(self.bob, "displayname", "Bob")
        await self.set_profile(self.bob, "avatar_url", "mxc://example.org/bob")

        self.assertEqual(
            await self.member(self.bob),
            {"membership": "join", "displayname": "Bob", "avatar_url": "mxc://example.org/bob"},
        )
        synced = await self.alice.sync(since)
        events = synced["rooms"]["join"][self.room]["timeline"]["events"]
        self.assertEqual([event["sender"] for event in events], [self.bob.user_id] * 2)
        self.assertEqual(events[1]["unsigned"]["prev_content"]["displayname"], "Bob")

    async def test_a_profile_changes_where_a_room_forbids_the_member(self) -> None:
        """A ban from a room does not prevent a change of name."""
        await self.alice.ban(self.room, self.bob)

        await self.set_profile(self.bob, "displayname", "Bob")

        self.assertEqual((await self.member(self.bob))["membership"], "ban")

    async def test_a_closed_account_has_left_everywhere(self) -> None:
        """Other users do not write to a deactivated account."""
        invited = await self.alice.create_room(invite=[self.bob])

        await self.deactivate(self.bob)

        self.assertEqual((await self.member(self.bob))["membership"], "leave")
        self.assertEqual((await self.member(self.bob, invited))["membership"], "leave")

    async def test_a_profile_that_goes_with_its_account_changes_no_room(self) -> None:
        """A user who left does not join again to remove their name."""
        await self.set_profile(self.bob, "displayname", "Bob")

        await self.deactivate(self.bob)

        self.assertEqual(await self.member(self.bob), {"membership": "leave"})


class GuestTests(ServerTestCase):
    async def test_guests_leave_when_a_room_takes_no_more(self) -> None:
        """The guests leave, independent of their clients."""
        alice, guest = await self.register("alice"), await self.register_guest()
        room = await alice.create_room(public=True)
        await alice.set_state(room, "m.room.guest_access", {"guest_access": "can_join"})
        await guest.join(room)

        since = (await alice.sync())["next_batch"]
        await alice.set_state(room, "m.room.guest_access", {"guest_access": "forbidden"})
        await alice.sync(since)
        while (await alice.members(room))[guest.user_id] == "join":
            since = (await alice.sync(since, timeout_ms=1_000))["next_batch"]

        self.assertEqual((await alice.members(room))[guest.user_id], "leave")
        await self.assert_refused("M_GUEST_ACCESS_FORBIDDEN", guest.join(room), 403)
