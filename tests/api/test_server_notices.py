"""Messages of the server itself to its users."""

from typing import Any, ClassVar

from twisted.internet.defer import Deferred, gatherResults

from tests.support.actors import Actor
from tests.support.server import ServerTestCase

NOTICES = "@notices:example.org"
TEXT = {"body": "Tonight the server is updated."}


class ServerNoticesTests(ServerTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "server_notices": {"user": "notices", "room_name": "From your server"}
    }

    async def setUp(self) -> None:
        await super().setUp()
        self.admin = await self.register_admin("admin")
        self.alice = await self.register("alice")

    async def notify(self, user_id: str, content: Any = TEXT, actor: Actor | None = None) -> Any:
        path = "/_synapse/admin/v1/send_server_notice"
        body = {"user_id": user_id, "content": content}
        return await (actor or self.admin).request("POST", path, body)

    async def invited(self) -> str:
        """The one room that Alice is invited to."""
        (room,) = (await self.alice.sync())["rooms"]["invite"]
        return str(room)

    async def test_user_is_invited_and_reads(self) -> None:
        """A notice reaches the user in a room that they are invited to."""
        event_id = (await self.notify(self.alice.user_id))["event_id"]
        room = await self.invited()
        tags = await self.alice.get(f"/user/{self.alice.user_id}/rooms/{room}/tags")

        await self.alice.join(room)

        event = await self.alice.event(room, event_id)
        self.assertEqual(event["content"], {"msgtype": "m.server_notice", **TEXT})
        self.assertEqual(event["sender"], NOTICES)
        self.assertEqual(tags, {"tags": {"m.server_notice": {}}})
        name = await self.alice.state(room, "m.room.name")
        self.assertEqual(name, {"name": "From your server"})
        await self.assert_refused("M_FORBIDDEN", self.alice.say(room, "Why?"), 403)
        await self.assert_refused("M_FORBIDDEN", self.alice.invite(room, self.admin), 403)

    async def test_there_is_one_room_for_each_user(self) -> None:
        """All notices to a user are in one room, which no other user can read."""
        bob = await self.register("bob")
        await self.notify(self.alice.user_id)
        room = await self.invited()
        await self.alice.join(room)

        await self.notify(self.alice.user_id)
        await self.notify(bob.user_id)
        await self.restart_server(self.admin, self.alice, bob)
        await self.notify(self.alice.user_id)

        said = await self.alice.messages(room)
        notices = [e for e in said["chunk"] if e["type"] == "m.room.message"]
        self.assertEqual(len(notices), 3)
        self.assertEqual((await self.alice.get("/joined_rooms"))["joined_rooms"], [room])
        self.assertNotIn(room, (await bob.sync())["rooms"]["invite"])

    async def test_request_with_a_transaction_id_is_made_once(self) -> None:
        """A tool that got no answer asks again, also after the server restarted."""
        phone = await self.log_in(self.admin)
        bob = await self.register("bob")

        async def put(admin: Actor, user: Actor, txn_id: str = "1") -> str:
            path = f"/_synapse/admin/v1/send_server_notice/{txn_id}"
            body = {"user_id": user.user_id, "content": TEXT}
            return str((await admin.request("PUT", path, body))["event_id"])

        at_once = [Deferred.fromCoroutine(put(self.admin, self.alice)) for _ in range(3)]
        first = await gatherResults(at_once)
        to_another = await put(self.admin, bob)
        another = [await put(self.admin, self.alice, "2"), await put(phone, self.alice)]
        await self.restart_server(self.admin, phone, self.alice, bob)
        later = await put(self.admin, self.alice)

        self.assertEqual({*first, later, to_another}, {first[0]})
        self.assertEqual(len({first[0], *another}), 3)
        room = await self.invited()
        await self.alice.join(room)
        said = (await self.alice.messages(room))["chunk"]
        notices = [event for event in said if event["type"] == "m.room.message"]
        self.assertEqual([event["event_id"] for event in notices], [*another[::-1], first[0]])
        self.assertNotIn("transaction_id", notices[0]["unsigned"])
        self.assertNotIn("rooms", await bob.sync())

    async def test_invite_cannot_be_declined_but_the_room_can_be_left(self) -> None:
        """A user does not miss a notice by accident, and can leave the room."""
        await self.notify(self.alice.user_id)
        room = await self.invited()
        member = f"/rooms/{room}/state/m.room.member/{self.alice.user_id}"

        for attempt in (
            self.alice.leave(room),
            self.alice.put(member, {"membership": "leave"}),
        ):
            await self.assert_refused("M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", attempt, 403)
        await self.alice.join(room)
        await self.alice.leave(room)
        await self.notify(self.alice.user_id)

        self.assertEqual(await self.invited(), room)

    async def test_room_that_only_looks_like_one_is_not_used(self) -> None:
        """The tag is the user's to set, but no notice goes into a room with others."""
        own = await self.alice.create_room()
        await self.alice.put(f"/user/{self.alice.user_id}/rooms/{own}/tags/m.server_notice", {})

        await self.notify(self.alice.user_id)

        self.assertNotEqual(await self.invited(), own)

    async def test_only_administrators_speak_for_the_server(self) -> None:
        """And only to people who exist, with something to say."""
        of_alice = self.notify(self.alice.user_id, actor=self.alice)
        await self.assert_refused("M_FORBIDDEN", of_alice, 403)
        await self.assert_refused("M_NOT_FOUND", self.notify("@nobody:example.org"), 404)
        await self.assert_refused("M_BAD_JSON", self.notify(self.alice.user_id, {}), 400)

    async def test_account_of_a_person_does_not_speak_for_the_server(self) -> None:
        """A user who registered the name before it was configured sends no notices."""
        await self.register("notices")

        await self.assert_refused("M_USER_IN_USE", self.notify(self.alice.user_id), 400)


class WithoutNoticesTests(ServerTestCase):
    async def test_server_without_the_account_sends_none(self) -> None:
        """It is the administrator who decides that there is such an account."""
        admin = await self.register_admin("admin")
        body = {"user_id": admin.user_id, "content": TEXT}

        attempt = admin.request("POST", "/_synapse/admin/v1/send_server_notice", body)

        await self.assert_refused("M_NOT_FOUND", attempt, 404)
