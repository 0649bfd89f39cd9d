"""Who finds what: no result, count or highlight tells of an event that a user may not see."""

from typing import Any

from tests.api.search.search_test_case import SearchTestCase
from tests.search.stored_index import stored_entries
from tests.support.actors import Actor

VISIBILITY = "m.room.history_visibility"


class VisibilityTests(SearchTestCase):
    async def assert_finds(self, actor: Actor, expected: list[str], **criteria: Any) -> None:
        """The results of a search for the needle, and all else that it returns, are of these."""
        page = await self.search(actor, "needle", **criteria)
        found = [each["result"]["event_id"] for each in page["results"]]
        self.assertEqual(sorted(found), sorted(expected))
        self.assertEqual(page["count"], len(expected))
        self.assertEqual(page["highlights"], ["needle"] if expected else [])
        self.assertNotIn("next_batch", page)

    async def history(self, visibility: str) -> tuple[str, list[str], Actor]:
        """A room with this visibility, its needles, and a user who was not there for each.

        The needles come before the invite, between invite and join, while joined, after the leave.
        """
        carol = await self.register("carol")
        content = {"history_visibility": visibility}
        initial = [{"type": VISIBILITY, "content": content}]
        room = await self.alice.create_room(initial_state=initial)
        needles = [await self.alice.say(room, "needle")]
        await self.alice.invite(room, carol)
        needles.append(await self.alice.say(room, "needle"))
        await carol.join(room)
        needles.append(await self.alice.say(room, "needle"))
        await carol.leave(room)
        needles.append(await self.alice.say(room, "needle"))
        return room, needles, carol

    async def test_world_readable(self) -> None:
        """Somebody who left sees everything where anybody does."""
        _, needles, carol = await self.history("world_readable")
        await self.assert_finds(carol, needles)

    async def test_shared(self) -> None:
        """Somebody who left finds what was said up to then."""
        _, needles, carol = await self.history("shared")
        await self.assert_finds(carol, needles[:3])

    async def test_invited(self) -> None:
        """Somebody who left finds what was said from the invite to the leave."""
        _, needles, carol = await self.history("invited")
        await self.assert_finds(carol, needles[1:3])

    async def test_joined(self) -> None:
        """Somebody who left finds what was said while they were there."""
        _, needles, carol = await self.history("joined")
        await self.assert_finds(carol, needles[2:3])

    async def test_rejoined(self) -> None:
        """Somebody who came back does not find what was said meanwhile, if the room says so."""
        room, needles, carol = await self.history("joined")
        await self.alice.invite(room, carol)
        await carol.join(room)
        needles.append(await self.alice.say(room, "needle"))

        await self.assert_finds(carol, [needles[2], needles[4]])
        await self.assert_finds(self.alice, needles)

    async def test_banned(self) -> None:
        """A banned user reads nothing of the room, and finds nothing."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        await self.alice.say(room, "needle")
        await self.alice.ban(room, self.bob)

        await self.assert_finds(self.bob, [])

    async def test_strangers(self) -> None:
        """A user finds nothing in rooms that they never were in, also if they name them."""
        carol = await self.register("carol")
        await self.alice.say(self.room, "needle")
        await self.alice.set_state(self.room, VISIBILITY, {"history_visibility": "world_readable"})

        await self.assert_finds(carol, [])
        await self.assert_finds(carol, [], filter={"rooms": [self.room]})

    async def test_invited_users(self) -> None:
        """An invited user finds what they may read already."""
        carol = await self.register("carol")
        initial = [{"type": VISIBILITY, "content": {"history_visibility": "invited"}}]
        room = await self.alice.create_room(initial_state=initial)
        await self.alice.say(room, "needle")
        await self.alice.invite(room, carol)
        after = await self.alice.say(room, "needle")

        await self.assert_finds(carol, [after])

    async def test_forgotten(self) -> None:
        """A room that a user has forgotten is not searched."""
        room, _, carol = await self.history("shared")
        await carol.forget(room)

        await self.assert_finds(carol, [])

    async def test_ignored_users(self) -> None:
        """A user does not find messages of users whom they ignore."""
        mine = await self.alice.say(self.room, "needle")
        await self.bob.say(self.room, "needle")
        content = {"ignored_users": {self.bob.user_id: {}}}
        path = f"/user/{self.alice.user_id}/account_data/m.ignored_user_list"
        await self.alice.put(path, content)

        await self.assert_finds(self.alice, [mine])

    async def test_redacted_messages(self) -> None:
        """Nobody finds a message once its redaction is acknowledged, nor by any of its words."""
        event_id = await self.bob.say(self.room, "needle")
        await self.assert_finds(self.alice, [event_id])

        await self.bob.redact(self.room, event_id)

        await self.assert_finds(self.alice, [])
        await self.assert_finds(self.bob, [])

    async def test_redaction_right_after_the_message(self) -> None:
        """A message that is redacted before it was indexed is not found, and leaves no entry."""
        for _ in range(5):
            await self.bob.redact(self.room, await self.bob.say(self.room, "needle"))

        await self.assert_finds(self.alice, [])
        self.assertEqual(await self.entries(), 0)

    async def test_redacted_names(self) -> None:
        """A redacted name of a room is not found."""
        name = await self.alice.set_state(self.room, "m.room.name", {"name": "needle"})
        await self.assert_finds(self.bob, [name])

        await self.alice.redact(self.room, name)

        await self.assert_finds(self.bob, [])

    async def test_erased_users(self) -> None:
        """Messages of an erased user are found by those who were there, and by nobody later."""
        carol = await self.register("carol")
        event_id = await self.bob.say(self.room, "needle")
        auth = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "bob"},
            "password": "the password of bob",
        }
        await self.bob.post("/account/deactivate", {"auth": auth, "erase": True})
        await carol.join(self.room)

        await self.assert_finds(self.alice, [event_id])
        await self.assert_finds(carol, [])

    async def test_upgraded_rooms(self) -> None:
        """A user who searches a room finds what was said in the rooms that it replaced."""
        first = await self.alice.say(self.room, "needle")
        second_room = await self.alice.upgrade(self.room, "10")
        await self.bob.join(second_room)
        second = await self.alice.say(second_room, "needle")
        third_room = await self.alice.upgrade(second_room, "11")
        await self.bob.join(third_room)
        third = await self.alice.say(third_room, "needle")

        only = {"rooms": [third_room]}
        await self.assert_finds(self.bob, [first, second, third], filter=only)
        await self.assert_finds(self.bob, [first, second], filter={"rooms": [second_room]})
        without = {"rooms": [third_room], "not_rooms": [self.room]}
        await self.assert_finds(self.bob, [second, third], filter=without)

    async def test_a_predecessor_that_a_user_was_not_in(self) -> None:
        """A room that claims to replace another one shows nothing of it."""
        private = await self.alice.create_room()
        await self.alice.say(private, "needle")
        creation = {"predecessor": {"room_id": private}}
        room = await self.bob.create_room(creation_content=creation)

        await self.assert_finds(self.bob, [], filter={"rooms": [room]})

    async def entries(self) -> int:
        """The number of messages in the index."""
        await self.server.parts.search.indexing.written()
        return sum(entry.key == 0 for entry in stored_entries(self.dsn))
