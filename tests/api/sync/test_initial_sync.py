"""Snapshots of rooms over the API."""

from typing import Any
from urllib.parse import quote

from tests.support.actors import Actor, bodies
from tests.support.server import ServerTestCase


class InitialSyncTestCase(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")

    async def snapshot(self, actor: Actor, **query: Any) -> dict[str, Any]:
        """The answer of `/initialSync`; its rooms by their ids."""
        response: dict[str, Any] = await actor.get("/initialSync", **query)
        response["rooms"] = {room["room_id"]: room for room in response["rooms"]}
        return response


class AllRoomsTests(InitialSyncTestCase):
    async def test_rooms_are_returned_as_they_are_now(self) -> None:
        """An old client starts with all that it shows."""
        room = await self.alice.create_room(visibility="public", name="Tea")
        for number in range(20):
            said = await self.alice.say(room, str(number))
        await self.alice.post(f"/rooms/{room}/receipt/m.read/{quote(said, safe='')}")
        own = f"/user/{self.alice.user_id}"
        await self.alice.put(f"{own}/rooms/{room}/tags/work", {})
        await self.alice.put(f"{own}/account_data/org.example.x", {"a": 1})

        response = await self.snapshot(self.alice)

        snapshot = response["rooms"][room]
        self.assertEqual((snapshot["membership"], snapshot["visibility"]), ("join", "public"))
        self.assertEqual(
            bodies(snapshot["messages"]["chunk"]), [str(number) for number in range(10, 20)]
        )
        names = [each["content"] for each in snapshot["state"] if each["type"] == "m.room.name"]
        self.assertEqual(names, [{"name": "Tea"}])
        self.assertEqual([each["type"] for each in snapshot["account_data"]], ["m.tag"])
        self.assertIn(said, response["receipts"][0]["content"])
        self.assertEqual(response["account_data"], [{"type": "org.example.x", "content": {"a": 1}}])
        present = [event["content"]["user_id"] for event in response["presence"]]
        self.assertEqual(present, [self.alice.user_id])

    async def test_tokens_continue_in_both_directions(self) -> None:
        """The earlier and the later events adjoin without a gap."""
        room = await self.alice.create_room()
        for number in range(5):
            await self.alice.say(room, str(number))

        response = await self.snapshot(self.alice, limit=2)

        messages = response["rooms"][room]["messages"]
        self.assertEqual(bodies(messages["chunk"]), ["3", "4"])
        before = await self.alice.messages(room, since=messages["start"], limit=1)
        self.assertEqual(bodies(before["chunk"]), ["2"])
        await self.alice.say(room, "5")
        events = await self.alice.get("/events", **{"from": response["end"]})
        self.assertEqual(bodies(events["chunk"]), ["5"])
        none = await self.snapshot(self.alice, limit=0)
        self.assertEqual(none["rooms"][room]["messages"]["chunk"], [])

    async def test_invites_are_returned_and_left_rooms_on_request(self) -> None:
        """The client shows invites, and an archive if it has one."""
        invited = await self.alice.create_room(invite=[self.bob])
        left = await self.alice.create_room(public=True)
        refused = await self.alice.create_room(invite=[self.bob])
        forgotten = await self.alice.create_room(public=True)
        for room in (left, forgotten):
            await self.bob.join(room)
        for room in (left, refused, forgotten):
            await self.bob.leave(room)
        await self.bob.forget(forgotten)
        await self.alice.say(left, "without Bob")

        now = await self.snapshot(self.bob)
        archive = await self.snapshot(self.bob, archived="true")

        self.assertEqual(set(now["rooms"]), {invited})
        self.assertEqual(now["rooms"][invited]["membership"], "invite")
        invite = now["rooms"][invited]["invite"]
        self.assertEqual((invite["type"], invite["sender"]), ("m.room.member", self.alice.user_id))
        self.assertEqual(set(archive["rooms"]), {invited, left, refused})
        self.assertEqual(archive["rooms"][left]["membership"], "leave")
        self.assertEqual(bodies(archive["rooms"][left]["messages"]["chunk"]), [])


class OneRoomTests(InitialSyncTestCase):
    async def test_world_readable_room_is_shown_to_strangers(self) -> None:
        """A preview shows the events since the room became world-readable, and no more."""
        room = await self.alice.create_room(public=True)
        await self.alice.say(room, "private")
        await self.alice.set_state(
            room, "m.room.history_visibility", {"history_visibility": "world_readable"}
        )
        await self.alice.say(room, "public")
        guest = await self.register_guest()

        snapshot = await guest.get(f"/rooms/{room}/initialSync")

        chunk = snapshot["messages"]["chunk"]
        self.assertEqual(
            [event["type"] for event in chunk], ["m.room.history_visibility", "m.room.message"]
        )
        self.assertNotIn("membership", snapshot)
        self.assertIn("m.room.create", [event["type"] for event in snapshot["state"]])
        (presence,) = snapshot["presence"]
        self.assertEqual(presence["content"]["user_id"], self.alice.user_id)
        self.assertEqual(presence["content"]["presence"], "offline")

    async def test_member_sees_the_room_and_who_left_as_it_was(self) -> None:
        """The old room is kept as it was when one left."""
        room = await self.alice.create_room(public=True, name="Before")
        await self.bob.join(room)
        await self.alice.say(room, "with Bob")
        await self.bob.leave(room)
        await self.alice.set_state(room, "m.room.name", {"name": "After"})
        said = await self.alice.say(room, "without Bob")
        await self.alice.post(f"/rooms/{room}/receipt/m.read/{quote(said, safe='')}")

        of_bob = await self.bob.get(f"/rooms/{room}/initialSync", limit=2)
        of_alice = await self.alice.get(f"/rooms/{room}/initialSync", limit=1)

        self.assertEqual(of_bob["membership"], "leave")
        self.assertEqual(bodies(of_bob["messages"]["chunk"]), ["with Bob"])
        self.assertEqual((of_bob["presence"], of_bob["receipts"]), ([], []))
        self.assertEqual(self._name(of_bob), "Before")
        self.assertEqual(of_alice["membership"], "join")
        self.assertEqual(bodies(of_alice["messages"]["chunk"]), ["without Bob"])
        self.assertEqual(len(of_alice["receipts"]), 1)
        self.assertEqual(self._name(of_alice), "After")

    async def test_strangers_are_refused(self) -> None:
        """A room that does not exist is refused like one that is private."""
        room = await self.alice.create_room(public=True)

        for path in (f"/rooms/{room}/initialSync", "/rooms/!none:x/initialSync"):
            await self.assert_refused("M_FORBIDDEN", self.bob.get(path), 403)
        bad = self.alice.get(f"/rooms/{room}/initialSync", limit=-1)
        await self.assert_refused("M_INVALID_PARAM", bad, 400)

    def _name(self, snapshot: dict[str, Any]) -> str:
        (name,) = [each for each in snapshot["state"] if each["type"] == "m.room.name"]
        text: str = name["content"]["name"]
        return text
