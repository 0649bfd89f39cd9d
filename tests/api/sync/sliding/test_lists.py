"""Lists: their order, their filters, and what they have in common with subscriptions."""

from typing import Any

from tests.api.sync.sliding.sliding_client import (
    SlidingClient,
    SlidingTestCase,
    texts,
    window,
)


class FilterTests(SlidingTestCase):
    async def filtered(self, **filters: Any) -> set[str]:
        """The rooms of a list with these filters."""
        response = await SlidingClient(self.alice, lists={"all": window(**filters)}).sync()
        self.assertEqual(response["lists"]["all"]["count"], len(response["rooms"]))
        return set(response["rooms"])

    async def test_direct_chats(self) -> None:
        """A client has a list of people and one of rooms."""
        direct, other = await self.alice.create_room(), await self.alice.create_room()
        path = f"/user/{self.alice.user_id}/account_data/m.direct"
        await self.alice.put(path, {self.bob.user_id: [direct], "x": 1, "y": [2]})

        self.assertEqual(await self.filtered(is_dm=True), {direct})
        self.assertEqual(await self.filtered(is_dm=False), {other})
        response = await SlidingClient(self.alice).sync()
        self.assertTrue(response["rooms"][direct]["is_dm"])
        self.assertNotIn("is_dm", response["rooms"][other])

    async def test_change_of_direct_chats_is_sent(self) -> None:
        """A room that becomes a direct chat moves to the people at once."""
        room = await self.alice.create_room()
        client = SlidingClient(self.alice)
        await client.sync()
        path = f"/user/{self.alice.user_id}/account_data/m.direct"
        await self.alice.put(path, {self.bob.user_id: [room]})

        became = await client.sync()
        await self.alice.put(path, {})
        ceased = await client.sync()

        self.assertEqual(became["rooms"][room]["is_dm"], True)
        self.assertEqual(ceased["rooms"][room]["is_dm"], False)

    async def test_encrypted_rooms(self) -> None:
        """A room that becomes encrypted moves to the other list."""
        content = {"algorithm": "m.megolm.v1.aes-sha2"}
        encryption = {"type": "m.room.encryption", "content": content}
        encrypted = await self.alice.create_room(initial_state=[encryption])
        plain = await self.alice.create_room()

        self.assertEqual(await self.filtered(is_encrypted=True), {encrypted})
        self.assertEqual(await self.filtered(is_encrypted=False), {plain})
        await self.alice.set_state(plain, "m.room.encryption", content)
        self.assertEqual(await self.filtered(is_encrypted=True), {encrypted, plain})
        await self.restart_server(self.alice)
        self.assertEqual(await self.filtered(is_encrypted=True), {encrypted, plain})

    async def test_room_types(self) -> None:
        """Spaces are not in the list of rooms."""
        space = await self.alice.create_room(creation_content={"type": "m.space"})
        room = await self.alice.create_room()
        for _ in range(2):
            self.assertEqual(await self.filtered(room_types=["m.space"]), {space})
            self.assertEqual(await self.filtered(room_types=[None]), {room})
            self.assertEqual(await self.filtered(not_room_types=["m.space"]), {room})
            self.assertEqual(await self.filtered(not_room_types=[None]), {space})
            both = ["m.space", None]
            self.assertEqual(await self.filtered(room_types=both), {space, room})
            self.assertEqual(
                await self.filtered(room_types=both, not_room_types=["m.space"]), {room}
            )
            await self.restart_server(self.alice)

    async def test_invites(self) -> None:
        """Invites can have a list of their own."""
        invited = await self.bob.create_room(
            invite=[self.alice], creation_content={"type": "m.space"}
        )
        room = await self.alice.create_room()

        self.assertEqual(await self.filtered(is_invite=True), {invited})
        self.assertEqual(await self.filtered(is_invite=False), {room})
        self.assertEqual(await self.filtered(room_types=["m.space"]), {invited})

    async def test_rooms_of_a_space(self) -> None:
        """A client shows the rooms of a space that the user is in."""
        space = await self.alice.create_room(creation_content={"type": "m.space"})
        child, other = await self.alice.create_room(), await self.alice.create_room()
        await self.alice.set_state(space, "m.space.child", {"via": ["example.org"]}, child)
        await self.alice.set_state(space, "m.space.child", {"via": ["example.org"]}, other)
        foreign = await self.bob.create_room(creation_content={"type": "m.space"})

        self.assertEqual(await self.filtered(spaces=[space]), {child, other})
        await self.alice.set_state(space, "m.space.child", {}, other)
        self.assertEqual(await self.filtered(spaces=[space, foreign, "!none:x"]), {child})

    async def test_tags(self) -> None:
        """Favourites have a list, and are not in the other one."""
        tagged, other = await self.alice.create_room(), await self.alice.create_room()
        path = f"/user/{self.alice.user_id}/rooms/{tagged}/tags"
        await self.alice.put(f"{path}/m.favourite", {})
        await self.alice.put(f"{path}/u.work", {})

        self.assertEqual(await self.filtered(tags=["m.favourite", "m.lowpriority"]), {tagged})
        self.assertEqual(await self.filtered(not_tags=["m.favourite"]), {other})
        both = await self.filtered(tags=["m.favourite"], not_tags=["u.work"])
        self.assertEqual(both, set())


class CombinationTests(SlidingTestCase):
    async def test_room_of_two_rules_gets_the_superset(self) -> None:
        """A room that is open and in the list is sent as both want it."""
        room = await self.alice.create_room(name="Tea", topic="Leaves")
        for number in range(4):
            await self.alice.say(room, str(number))
        lists = {
            "one": window(timeline_limit=1, required_state=[["m.room.topic", ""]]),
            "two": window(timeline_limit=3, required_state=[["m.room.create", ""]]),
        }
        subscription = {"timeline_limit": 2, "required_state": [["m.room.name", ""]]}
        client = SlidingClient(self.alice, lists=lists, room_subscriptions={room: subscription})

        shown = (await client.sync())["rooms"][room]

        self.assertEqual(texts(shown), ["1", "2", "3"])
        self.assertEqual(
            {event["type"] for event in shown["required_state"]},
            {"m.room.topic", "m.room.create", "m.room.name"},
        )

    async def test_subscription_needs_no_list(self) -> None:
        """A client can follow one room alone."""
        room, other = await self.alice.create_room(), await self.alice.create_room()
        subscription = {"timeline_limit": 5, "required_state": []}
        client = SlidingClient(self.alice, lists={}, room_subscriptions={room: subscription})

        first = await client.sync()
        await self.alice.say(other, "unseen")
        await self.alice.say(room, "seen")
        second = await client.sync()

        self.assertEqual(first["rooms"].keys(), {room})
        self.assertEqual(second["rooms"].keys(), {room})

    async def test_several_ranges(self) -> None:
        """A client that scrolls asks for the top and for what it shows."""
        rooms = [await self.alice.create_room() for _ in range(5)]
        wanted = window() | {"ranges": [[0, 0], [3, 10]]}

        response = await SlidingClient(self.alice, lists={"all": wanted}).sync()

        self.assertEqual(response["rooms"].keys(), {rooms[4], rooms[1], rooms[0]})

    async def test_bump_stamp_is_that_of_messages(self) -> None:
        """A reaction does not move a room to the top."""
        room = await self.alice.create_room()
        client = SlidingClient(self.alice)
        created = (await client.sync())["rooms"][room]["bump_stamp"]
        event = await self.alice.say(room, "hello")
        said = (await client.sync())["rooms"][room]["bump_stamp"]
        relation = {"rel_type": "m.annotation", "event_id": event, "key": "+"}
        await self.alice.send(room, "m.reaction", {"m.relates_to": relation})

        reacted = (await client.sync())["rooms"][room]
        fresh = (await SlidingClient(self.alice).sync())["rooms"][room]["bump_stamp"]

        self.assertGreater(said, created)
        self.assertLess(said, 2**53)
        self.assertNotIn("bump_stamp", reacted)
        self.assertEqual(fresh, said)
