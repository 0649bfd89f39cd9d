"""Jumping to a date over the API."""

from typing import Any

from tests.support.actors import CLIENT, Actor
from tests.support.server import ServerTestCase

PATH = CLIENT.replace("v3", "v1") + "/rooms/{}/timestamp_to_event"


class TimestampTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.room = await self.alice.create_room(public=True)
        self.events = [
            await self.alice.event(self.room, await self.alice.say(self.room, str(number)))
            for number in range(10)
        ]

    async def closest(self, actor: Actor, timestamp: int, direction: str, **query: Any) -> Any:
        query |= {"ts": timestamp, "dir": direction}
        return await actor.request("GET", PATH.format(self.room), query=query)

    async def test_closest_event_is_found_in_both_directions(self) -> None:
        """A reader jumps to a day and reads on from there."""
        for event in self.events:
            timestamp = event["origin_server_ts"]
            alike = [each for each in self.events if each["origin_server_ts"] == timestamp]

            forth = await self.closest(self.alice, timestamp, "f")
            back = await self.closest(self.alice, timestamp, "b")

            self.assertEqual(
                forth, {"event_id": alike[0]["event_id"], "origin_server_ts": timestamp}
            )
            self.assertEqual(back["event_id"], alike[-1]["event_id"])

    async def test_history_ends_somewhere(self) -> None:
        """Before the first event and after the last there is nothing."""
        last, far = self.events[-1], self.events[-1]["origin_server_ts"] + 86_400_000

        found = await self.closest(self.alice, far, "b")
        create = await self.closest(self.alice, 0, "f")

        self.assertEqual(found["event_id"], last["event_id"])
        event = await self.alice.event(self.room, create["event_id"])
        self.assertEqual(event["type"], "m.room.create")
        await self.assert_refused("M_NOT_FOUND", self.closest(self.alice, far, "f"), 404)
        await self.assert_refused("M_NOT_FOUND", self.closest(self.alice, 0, "b"), 404)

    async def test_answer_is_the_same_after_a_restart(self) -> None:
        """Old history is searched in the database."""
        for number in range(130):
            await self.alice.say(self.room, str(number))
        timestamp = self.events[4]["origin_server_ts"]
        before = [await self.closest(self.alice, timestamp, way) for way in ("b", "f")]

        await self.restart_server(self.alice)

        after = [await self.closest(self.alice, timestamp, way) for way in ("b", "f")]
        self.assertEqual(after, before)

    async def test_only_visible_events_are_found(self) -> None:
        """A date does not lead a user to events before they joined, or after they left."""
        bob = await self.register("bob")
        await self.alice.set_state(
            self.room, "m.room.history_visibility", {"history_visibility": "joined"}
        )
        await self.alice.say(self.room, "before Bob")
        await bob.join(self.room)
        with_bob = await self.alice.say(self.room, "with Bob")
        await bob.leave(self.room)
        await self.alice.say(self.room, "after Bob")
        timestamp = (await self.alice.event(self.room, with_bob))["origin_server_ts"]

        first = await self.closest(bob, timestamp - 60_000, "f")
        last = await self.closest(bob, timestamp + 60_000, "b")

        for found in (first, last):
            await bob.event(self.room, found["event_id"])
        own = await bob.event(self.room, last["event_id"])
        self.assertEqual(own["content"]["membership"], "leave")

    async def test_nonsense_and_strangers_are_refused(self) -> None:
        """A user who may not read the room learns nothing of it."""
        stranger = await self.register("stranger")

        await self.assert_refused("M_FORBIDDEN", self.closest(stranger, 0, "f"), 403)
        await self.assert_refused("M_INVALID_PARAM", self.closest(self.alice, 0, "x"), 400)
        path = PATH.format(self.room)
        await self.assert_refused("M_MISSING_PARAM", self.alice.request("GET", path), 400)
