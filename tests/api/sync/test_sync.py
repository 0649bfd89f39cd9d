"""Syncing over the API: filters, left rooms, and what else a client may ask for."""

import json
from typing import Any

from tests.support.actors import Actor, bodies
from tests.support.server import ServerTestCase

ARCHIVE = {"room": {"include_leave": True}}


def types(section: Any) -> list[str]:
    """The types of the events in a part of an answer."""
    return [event["type"] for event in section.get("events", [])]


class SyncTestCase(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")

    async def filtered(
        self, actor: Actor, wanted: dict[str, Any], since: str | None = None, **query: Any
    ) -> Any:
        """One `/sync` with a filter."""
        return await actor.sync(since, filter=json.dumps(wanted), **query)

    async def set_data(self, actor: Actor, room: str, **content: Any) -> None:
        """Set account data of a room."""
        path = f"/user/{actor.user_id}/rooms/{room}/account_data/org.example.x"
        await actor.put(path, content)


class FilterTests(SyncTestCase):
    async def test_parts_of_a_room_are_wanted_of_some_rooms_only(self) -> None:
        """A small client shows one conversation, and of the others that they are there."""
        shown = await self.alice.create_room(name="Shown")
        other = await self.alice.create_room(name="Other")
        for room in (shown, other):
            await self.alice.say(room, "hello")
            await self.set_data(self.alice, room, a=1)
        for part in ("timeline", "state", "account_data", "ephemeral"):
            for wanted in ({"rooms": [shown]}, {"not_rooms": [other]}):
                response = await self.filtered(self.alice, {"room": {part: wanted}})

                rooms = response["rooms"]["join"]
                self.assertEqual(rooms[other].get(part, {}).get("events", []), [])
                if part in ("timeline", "account_data"):
                    self.assertNotEqual(rooms[shown][part]["events"], [])

    async def test_room_without_timeline_has_its_state(self) -> None:
        """State that the timeline does not have is sent separately."""
        room = await self.alice.create_room()
        wanted = {"room": {"timeline": {"not_rooms": [room]}}}
        first = await self.filtered(self.alice, wanted)
        await self.alice.set_state(room, "m.room.name", {"name": "Tea"})
        await self.alice.say(room, "hello")

        second = await self.filtered(self.alice, wanted, first["next_batch"])
        await self.alice.say(room, "again")
        third = await self.filtered(self.alice, wanted, second["next_batch"])

        self.assertIn("m.room.create", types(first["rooms"]["join"][room]["state"]))
        self.assertEqual(types(second["rooms"]["join"][room]["state"]), ["m.room.name"])
        self.assertEqual(types(second["rooms"]["join"][room]["timeline"]), [])
        self.assertNotIn("rooms", third)

    async def test_ephemeral_events_are_wanted_of_some_rooms_only(self) -> None:
        """A client is not woken by who types in a room that it does not show."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        since = (await self.bob.sync())["next_batch"]
        await self.alice.put(f"/rooms/{room}/typing/{self.alice.user_id}", {"typing": True})

        hidden = await self.filtered(
            self.bob, {"room": {"ephemeral": {"not_rooms": [room]}}}, since
        )
        shown = await self.filtered(self.bob, {"room": {"ephemeral": {"rooms": [room]}}}, since)

        self.assertNotIn("rooms", hidden)
        self.assertEqual(types(shown["rooms"]["join"][room]["ephemeral"]), ["m.typing"])


class StateAfterTests(SyncTestCase):
    async def test_every_joined_room_has_it(self) -> None:
        """A client that requested it must be able to rely on it, also where nothing changed."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        first = await self.alice.sync(use_state_after="true")
        await self.bob.put(f"/rooms/{room}/typing/{self.bob.user_id}", {"typing": True})

        second = await self.alice.sync(first["next_batch"], use_state_after="true")

        self.assertIn("m.room.create", types(first["rooms"]["join"][room]["state_after"]))
        section = second["rooms"]["join"][room]
        self.assertEqual(section["state_after"], {"events": []})
        self.assertNotIn("state", section)

    async def test_it_has_the_requested_name(self) -> None:
        """Some clients know only its unstable name."""
        room = await self.alice.create_room(public=True)
        unstable = "org.matrix.msc4222"
        options = {f"{unstable}.use_state_after": "true"}
        first = await self.alice.sync(**options)
        await self.alice.set_state(room, "m.room.name", {"name": "Tea"})

        second = await self.alice.sync(first["next_batch"], **options)

        sections = [each["rooms"]["join"][room] for each in (first, second)]
        names = [types(section[f"{unstable}.state_after"]) for section in sections]
        self.assertIn("m.room.create", names[0])
        self.assertEqual(names[1], ["m.room.name"])
        for section in sections:
            self.assertFalse({"state", "state_after"} & section.keys())

    async def test_state_at_the_end_includes_state_in_the_timeline(self) -> None:
        """The client need not compute the state from the timeline."""
        room = await self.alice.create_room()
        since = (await self.alice.sync())["next_batch"]
        await self.alice.set_state(room, "m.room.name", {"name": "Tea"})

        response = await self.alice.sync(since, use_state_after="true")

        section = response["rooms"]["join"][room]
        self.assertEqual(types(section["state_after"]), ["m.room.name"])
        self.assertEqual(types(section["timeline"]), ["m.room.name"])


class LeftRoomTests(SyncTestCase):
    async def test_left_room_comes_with_what_the_user_attached_to_it(self) -> None:
        """An archive is sorted like the rooms that one is in."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.set_data(self.bob, room, a=1)
        since = (await self.bob.sync())["next_batch"]
        await self.bob.leave(room)
        await self.set_data(self.bob, room, a=2)
        archive = {"room": {"include_leave": True}}

        incremental = await self.bob.sync(since)
        whole = await self.filtered(self.bob, archive)
        await self.set_data(self.bob, room, a=3)
        more = await self.filtered(self.bob, archive, whole["next_batch"])
        unasked = await self.bob.sync(whole["next_batch"])

        for response, expected in ((incremental, 2), (whole, 2), (more, 3)):
            (event,) = response["rooms"]["leave"][room]["account_data"]["events"]
            self.assertEqual(event, {"type": "org.example.x", "content": {"a": expected}})
        self.assertEqual(types(more["rooms"]["leave"][room]["timeline"]), [])
        self.assertEqual(types(more["rooms"]["leave"][room]["state"]), [])
        self.assertNotIn("rooms", unasked)

    async def test_left_room_ends_with_the_leave(self) -> None:
        """A user does not get events after they left."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.alice.say(room, "with Bob")
        since = (await self.bob.sync())["next_batch"]
        await self.bob.leave(room)
        await self.alice.say(room, "without Bob")
        await self.alice.set_state(room, "m.room.name", {"name": "Secret"})

        for response in (
            await self.bob.sync(since),
            await self.filtered(self.bob, {"room": {"include_leave": True}}),
        ):
            section = response["rooms"]["leave"][room]
            self.assertNotIn("m.room.name", types(section["state"]) + types(section["timeline"]))
            self.assertNotIn("without Bob", bodies(section["timeline"]["events"]))
            self.assertEqual(section["timeline"]["events"][-1]["content"]["membership"], "leave")

    async def test_declined_invite_ends_with_the_leave(self) -> None:
        """A client gets the event that removes the room."""
        room = await self.alice.create_room(invite=[self.bob])
        since = (await self.bob.sync())["next_batch"]
        await self.bob.leave(room)

        for response in (await self.bob.sync(since), await self.filtered(self.bob, ARCHIVE)):
            self.assert_only_own(response, room, self.bob, "leave")

    async def test_knock_that_is_taken_back_ends_with_the_departure(self) -> None:
        """The same, where the user was the one to ask."""
        rules = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
        room = await self.alice.create_room(initial_state=[rules])
        await self.bob.knock(room)
        since = (await self.bob.sync())["next_batch"]
        await self.bob.leave(room)

        self.assert_only_own(await self.bob.sync(since), room, self.bob, "leave")

    async def test_invite_declined_after_a_membership_ends_with_the_leave(self) -> None:
        """A former member sees that time, and the end of the invite, nothing in between."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.bob.leave(room)
        await self.alice.say(room, "without Bob")
        await self.alice.invite(room, self.bob)
        since = (await self.bob.sync())["next_batch"]
        await self.bob.leave(room)

        for response in (await self.bob.sync(since), await self.filtered(self.bob, ARCHIVE)):
            timeline = response["rooms"]["leave"][room]["timeline"]["events"]
            self.assertEqual(timeline[-1]["content"]["membership"], "leave")
            self.assertEqual(timeline[-1]["unsigned"]["prev_content"]["membership"], "invite")
            self.assertNotIn("without Bob", bodies(timeline))

    async def test_archive_has_rooms_that_the_user_was_banned_from(self) -> None:
        """They have left these as well, if not by their own choice."""
        room = await self.alice.create_room(public=True)
        other = await self.alice.create_room(invite=[self.bob])
        await self.bob.join(room)
        for each in (room, other):
            await self.alice.ban(each, self.bob)

        response = await self.filtered(self.bob, ARCHIVE)

        self.assertEqual(response["rooms"]["leave"].keys(), {room, other})
        self.assert_only_own(response, other, self.bob, "ban")
        timeline = response["rooms"]["leave"][room]["timeline"]["events"]
        self.assertEqual(timeline[-1]["content"]["membership"], "ban")

    async def test_own_departure_keeps_to_the_limit_and_the_filter(self) -> None:
        """A client that wants no such event gets none."""
        room = await self.alice.create_room(invite=[self.bob])
        since = (await self.bob.sync())["next_batch"]
        await self.bob.leave(room)

        for wanted in ({"limit": 0}, {"types": ["m.room.message"]}):
            response = await self.filtered(self.bob, {"room": {"timeline": wanted}}, since)
            section = response["rooms"]["leave"][room]
            self.assertEqual(section["timeline"]["events"], [])

    def assert_only_own(self, response: Any, room: str, user: Actor, membership: str) -> None:
        section = response["rooms"]["leave"][room]
        (event,) = section["timeline"]["events"]
        self.assertEqual((event["type"], event["state_key"]), ("m.room.member", user.user_id))
        self.assertEqual(event["content"]["membership"], membership)
        self.assertEqual(section["state"]["events"], [])
