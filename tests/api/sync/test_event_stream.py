"""The old event stream over the API, and looking into rooms through it."""

from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred

from homeserver.sync import streamed_events
from tests.support.actors import Actor, bodies
from tests.support.server import ServerTestCase

LONG = 120_000  # ms: no wait ends by itself while a test runs
WORLD = [{"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}}]


async def events(actor: Actor, since: str | None = None, **query: Any) -> Any:
    """One answer of the event stream."""
    if since is not None:
        query["from"] = since
    return await actor.get("/events", **query)


def types(chunk: list[Any]) -> list[str]:
    return [event["type"] for event in chunk if event["type"] != "m.presence"]


class EventStreamTestCase(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")

    async def hear(self, actor: Actor, wanted: str, since: str, **query: Any) -> Any:
        """The first event of a type."""
        for _ in range(20):
            response = await events(actor, since, timeout=LONG, **query)
            for event in response["chunk"]:
                if event["type"] == wanted:
                    return event
            since = response["end"]
        return self.fail(f"there was no {wanted}")


class EventStreamTests(EventStreamTestCase):
    async def test_stream_begins_now(self) -> None:
        """Without a token a client learns where to begin, at once."""
        await self.alice.create_room()

        response = await events(self.alice, timeout=0)

        self.assertEqual(response["chunk"], [])
        self.assertEqual(response["start"], response["end"])

    async def test_empty_token_is_none(self) -> None:
        """Some clients always send one."""
        response = await events(self.alice, "")

        self.assertEqual(response["chunk"], [])
        self.assertTrue(response["end"])

    async def test_everything_comes_once_and_in_order(self) -> None:
        """A bot from the early days misses nothing, however much was said."""
        self.patch(streamed_events, "LIMIT", 7)
        rooms = [await self.alice.create_room(public=True) for _ in range(2)]
        for room in rooms:
            await self.bob.join(room)
        since = (await events(self.alice))["end"]
        said = [str(number) for number in range(30)]
        for number, text in enumerate(said):
            await self.bob.say(rooms[number % 2], text)
        found: list[Any] = []

        while len(response := await events(self.alice, since)) and since != response["end"]:
            self.assertEqual(response["start"], since)
            found += [event for event in response["chunk"] if event["type"] == "m.room.message"]
            since = response["end"]

        self.assertEqual(bodies(found), said)
        self.assertEqual({event["room_id"] for event in found}, set(rooms))
        self.assertEqual({event["user_id"] for event in found}, {self.bob.user_id})

    async def test_stream_waits_for_a_change(self) -> None:
        """A message arrives when it is said, not when the client asks again."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        since = (await events(self.bob))["end"]
        hearing = Deferred.fromCoroutine(self.hear(self.bob, "m.room.message", since))

        await self.alice.say(room, "Hello")

        self.assertEqual((await hearing)["content"]["body"], "Hello")
        now = (await events(self.bob))["end"]
        self.assertEqual((await events(self.bob, now, timeout=50))["chunk"], [])

    async def test_what_is_no_event_of_a_room_comes_too(self) -> None:
        """Typing, receipts, tags, account data and presence have no stream of their own there."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        said = await self.alice.say(room, "Hello")
        since = (await events(self.alice))["end"]
        own = f"/user/{self.alice.user_id}"

        await self.bob.put(f"/rooms/{room}/typing/{self.bob.user_id}", {"typing": True})
        await self.bob.post(f"/rooms/{room}/receipt/m.read/{quote(said, safe='')}")
        await self.alice.put(f"{own}/rooms/{room}/tags/work", {})
        await self.alice.put(f"{own}/account_data/org.example.x", {"a": 1})
        await self.bob.put(f"/presence/{self.bob.user_id}/status", {"presence": "unavailable"})

        typing = await self.hear(self.alice, "m.typing", since)
        receipt = await self.hear(self.alice, "m.receipt", since)
        tag = await self.hear(self.alice, "m.tag", since)
        data = await self.hear(self.alice, "org.example.x", since)
        presence = await self.hear(self.alice, "m.presence", since)
        self.assertEqual((typing["room_id"], receipt["room_id"], tag["room_id"]), (room,) * 3)
        self.assertEqual(typing["content"], {"user_ids": [self.bob.user_id]})
        self.assertIn(said, receipt["content"])
        self.assertEqual(data["content"], {"a": 1})
        self.assertIn("user_id", presence["content"])

    async def test_invited_user_hears_of_the_invite_alone(self) -> None:
        """An invite is a door, not a window."""
        since = (await events(self.bob))["end"]
        room = await self.alice.create_room(invite=[self.bob])
        await self.alice.say(room, "secret")

        response = await events(self.bob, since)

        (invite,) = [event for event in response["chunk"] if event["type"].startswith("m.room")]
        self.assertEqual(invite["content"]["membership"], "invite")
        self.assertEqual(invite["state_key"], self.bob.user_id)

    async def test_user_who_leaves_gets_the_leave_and_nothing_after(self) -> None:
        """A user does not get events after they left."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        since = (await events(self.bob))["end"]
        await self.alice.say(room, "with Bob")
        await self.bob.leave(room)
        await self.alice.say(room, "without Bob")

        response = await events(self.bob, since)

        self.assertEqual(types(response["chunk"]), ["m.room.message", "m.room.member"])

    async def test_ignored_users_are_hidden(self) -> None:
        """Ignored users are ignored at this endpoint too."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        content = {"ignored_users": {self.bob.user_id: {}}}
        await self.alice.put(
            f"/user/{self.alice.user_id}/account_data/m.ignored_user_list", content
        )
        since = (await events(self.alice))["end"]

        await self.bob.say(room, "spam")
        await self.bob.create_room(invite=[self.alice])
        await self.alice.say(room, "mine")

        response = await events(self.alice, since)
        self.assertEqual(bodies(response["chunk"]), ["mine"])
        self.assertEqual(types(response["chunk"]), ["m.room.message"])

    async def test_nonsense_is_refused(self) -> None:
        """A token of something else does not lead to a random place."""
        await self.assert_refused("M_INVALID_PARAM", events(self.alice, "nonsense"), 400)
        for limit in ("hello", -2):
            attempt = events(self.alice, limit=limit)
            await self.assert_refused("M_INVALID_PARAM", attempt, 400)

    async def test_client_takes_as_many_events_as_it_can_bear(self) -> None:
        """A small client goes through a busy room in small steps, and misses nothing."""
        room = await self.alice.create_room()
        since = (await events(self.alice))["end"]
        for number in range(5):
            await self.alice.say(room, str(number))

        first = await events(self.alice, since, limit=2, room_id=room)
        second = await events(self.alice, first["end"], limit=2)

        self.assertEqual(bodies(first["chunk"]), ["0", "1"])
        self.assertEqual(bodies(second["chunk"]), ["2", "3"])

    async def test_single_event_is_found_without_its_room(self) -> None:
        """An old link to an event leads those there who may see it."""
        room = await self.alice.create_room()
        event_id = await self.alice.say(room, "Hello")
        path = f"/events/{quote(event_id, safe='')}"

        event = await self.alice.get(path)

        self.assertEqual((event["event_id"], event["room_id"]), (event_id, room))
        await self.assert_refused("M_NOT_FOUND", self.bob.get(path), 404)
        await self.assert_refused("M_NOT_FOUND", self.alice.get("/events/$none"), 404)


class PeekingTests(EventStreamTestCase):
    async def test_guest_follows_a_world_readable_room(self) -> None:
        """A guest reads a conversation before joining it."""
        room = await self.alice.create_room(public=True, initial_state=WORLD)
        guest = await self.register_guest()
        since = (await events(guest, room_id=room))["end"]
        hearing = Deferred.fromCoroutine(self.hear(guest, "m.room.message", since, room_id=room))

        said = await self.alice.say(room, "Hello, world")

        self.assertEqual((await hearing)["event_id"], said)
        hearing = Deferred.fromCoroutine(self.hear(guest, "m.typing", since, room_id=room))
        await self.alice.put(f"/rooms/{room}/typing/{self.alice.user_id}", {"typing": True})
        self.assertEqual((await hearing)["content"]["user_ids"], [self.alice.user_id])
        await self.alice.put(f"/presence/{self.alice.user_id}/status", {"presence": "unavailable"})
        presence = await self.hear(guest, "m.presence", since, room_id=room)
        self.assertEqual(presence["content"]["user_id"], self.alice.user_id)

    async def test_other_rooms_are_closed(self) -> None:
        """Following is not a way around joining."""
        for visibility in ("shared", "invited", "joined"):
            content = {"history_visibility": visibility}
            state = [{"type": "m.room.history_visibility", "content": content}]
            room = await self.alice.create_room(public=True, initial_state=state)
            await self.assert_refused("M_FORBIDDEN", events(self.bob, room_id=room), 403)
        await self.assert_refused("M_FORBIDDEN", events(self.bob, room_id="!none:x"), 403)

    async def test_room_becomes_unreadable_while_a_user_peeks(self) -> None:
        """A room that closes is closed at once."""
        room = await self.alice.create_room(public=True, initial_state=WORLD)
        since = (await events(self.bob, room_id=room))["end"]
        watching = Deferred.fromCoroutine(events(self.bob, since, room_id=room, timeout=LONG))

        await self.alice.set_state(
            room, "m.room.history_visibility", {"history_visibility": "shared"}
        )

        await self.assert_refused("M_FORBIDDEN", watching, 403)

    async def test_one_room_is_followed_without_the_others(self) -> None:
        """A preview shows what it is a preview of."""
        room = await self.alice.create_room(public=True, initial_state=WORLD)
        other = await self.alice.create_room()
        since = (await events(self.alice))["end"]
        await self.alice.say(other, "in another room")
        await self.alice.say(room, "here")

        response = await events(self.alice, since, room_id=room)

        self.assertEqual(bodies(response["chunk"]), ["here"])

    async def test_server_that_stops_answers_those_who_wait(self) -> None:
        """A restart is not held up by spectators."""
        room = await self.alice.create_room(public=True, initial_state=WORLD)
        since = (await events(self.bob, room_id=room))["end"]
        watching = Deferred.fromCoroutine(events(self.bob, since, room_id=room, timeout=LONG))
        await events(self.bob)

        await self.restart_server(self.alice, self.bob)

        self.assertEqual((await watching)["chunk"], [])
