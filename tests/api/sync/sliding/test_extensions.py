"""The extensions: what a connection has beside rooms."""

from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred

from homeserver.sync.sliding.responses import Responses
from tests.api.sync.sliding.sliding_client import (
    SlidingClient,
    SlidingTestCase,
    window,
)
from tests.support.actors import Actor
from tests.support.reactor import pause


class ExtensionsTestCase(SlidingTestCase):
    def client(self, actor: Actor, **extensions: Any) -> SlidingClient:
        """A connection with these extensions enabled."""
        enabled = {name: {"enabled": True, **body} for name, body in extensions.items()}
        return SlidingClient(actor, extensions=enabled)


class ToDeviceTests(ExtensionsTestCase):
    async def send(self, text: str, txn_id: str) -> None:
        """A message from Bob to Alice's device."""
        messages = {self.alice.user_id: {self.alice.device_id: {"text": text}}}
        await self.bob.put(f"/sendToDevice/org.example.x/{txn_id}", {"messages": messages})

    async def test_messages_come_until_they_are_acknowledged(self) -> None:
        """No key of an encrypted room is lost, whatever happens to a response."""
        await self.send("one", "1")
        client = self.client(self.alice, to_device={})

        first = (await client.sync())["extensions"]["to_device"]
        again = (await client.sync())["extensions"]["to_device"]
        client.body["extensions"]["to_device"]["since"] = first["next_batch"]
        after = await client.sync()
        await self.send("two", "2")
        second = (await client.sync())["extensions"]["to_device"]

        self.assertEqual([event["content"]["text"] for event in first["events"]], ["one"])
        self.assertEqual(again["events"], first["events"])
        self.assertNotIn("to_device", after["extensions"])
        self.assertEqual([event["content"]["text"] for event in second["events"]], ["two"])

    async def test_limit_leaves_the_rest_for_later(self) -> None:
        """A device that was away receives its messages in parts."""
        for number in range(5):
            await self.send(str(number), str(number))
        client = self.client(self.alice, to_device={"limit": 2})
        received = []
        for _ in range(3):
            part = (await client.sync())["extensions"]["to_device"]
            received.append([event["content"]["text"] for event in part["events"]])
            client.body["extensions"]["to_device"]["since"] = part["next_batch"]

        self.assertEqual(received, [["0", "1"], ["2", "3"], ["4"]])

    async def test_message_ends_the_wait(self) -> None:
        """A verification does not take half a minute."""
        client = self.client(self.alice, to_device={})
        first = await client.sync()
        since = first["extensions"]["to_device"]["next_batch"]
        client.body["extensions"]["to_device"]["since"] = since
        waiting = Deferred.fromCoroutine(client.sync(timeout_ms=30_000))
        await self.send("hello", "1")

        response = await waiting

        self.assertEqual(len(response["extensions"]["to_device"]["events"]), 1)

    async def test_invalid_token_is_refused(self) -> None:
        """A token of something else does not delete messages."""
        client = self.client(self.alice, to_device={"since": "garbage"})

        await self.assert_refused("M_INVALID_PARAM", client.sync(), 400)


class E2eeTests(ExtensionsTestCase):
    async def test_device_lists_and_key_counts(self) -> None:
        """A device encrypts for the right devices, and uploads keys in time."""
        room = await self.alice.create_room(public=True)
        client = self.client(self.alice, e2ee={})
        first = (await client.sync())["extensions"]["e2ee"]
        await self.bob.join(room)

        joined = (await client.sync())["extensions"]["e2ee"]
        keys = {"signed_curve25519:A": {"key": "a", "signatures": {}}}
        await self.alice.post("/keys/upload", {"one_time_keys": keys})
        uploaded = (await client.sync())["extensions"]["e2ee"]
        await self.bob.leave(room)
        left = (await client.sync())["extensions"]["e2ee"]

        self.assertEqual(first["device_one_time_keys_count"], {"signed_curve25519": 0})
        self.assertEqual(first["device_unused_fallback_key_types"], [])
        self.assertNotIn("device_lists", first)
        self.assertEqual(joined["device_lists"]["changed"], [self.bob.user_id])
        self.assertEqual(uploaded["device_one_time_keys_count"], {"signed_curve25519": 1})
        self.assertEqual(left["device_lists"]["left"], [self.bob.user_id])

    async def test_connection_of_this_extension_alone(self) -> None:
        """A client has a connection for encryption that asks for no room."""
        client = self.client(self.alice, e2ee={})
        client.body["lists"] = {}
        await client.sync()

        response = await client.sync()

        counts = response["extensions"]["e2ee"]["device_one_time_keys_count"]
        self.assertEqual(counts, {"signed_curve25519": 0})

    async def test_changes_while_the_extension_was_off_are_not_lost(self) -> None:
        """A client that enables encryption again knows all devices."""
        room = await self.alice.create_room(public=True)
        client = self.client(self.alice, e2ee={})
        await client.sync()
        await client.sync(extensions={})
        await self.bob.join(room)
        await client.sync()

        response = await client.sync(extensions={"e2ee": {"enabled": True}})

        lists = response["extensions"]["e2ee"]["device_lists"]
        self.assertEqual(lists["changed"], [self.bob.user_id])


class ConnectionOfTheDeviceTests(ExtensionsTestCase):
    """A client has a connection that asks for no room, and waits on it nearly all the time."""

    async def setUp(self) -> None:
        await super().setUp()
        self.room = await self.alice.create_room(public=True)
        await self.bob.join(self.room)
        self.waiting = self.client(self.alice, e2ee={}, to_device={})
        self.waiting.body["lists"] = {}
        first = await self.waiting.sync()
        to_device = self.waiting.body["extensions"]["to_device"]
        to_device["since"] = first["extensions"]["to_device"]["next_batch"]

    async def extensions_after(self, action: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
        """What the client gets, which has waited through a message to the room."""
        response = Deferred.fromCoroutine(self.waiting.sync(timeout_ms=30_000))
        await self.alice.say(self.room, "hello")
        await pause(0.05)
        self.assertFalse(response.called)
        await action()
        extensions: dict[str, Any] = (await response)["extensions"]
        return extensions

    async def test_messages_to_rooms_do_not_concern_it(self) -> None:
        """A hundred members have such connections: none of them is made a response."""
        with patch.object(Responses, "make", side_effect=AssertionError("it is made")):
            response = Deferred.fromCoroutine(self.waiting.sync(timeout_ms=30_000))
            for _ in range(5):
                await self.bob.say(self.room, "hello")
            await pause(0.05)

        self.assertFalse(response.called)
        await self.bob.leave(self.room)
        await response

    async def test_message_to_the_device_does(self) -> None:
        """A verification does not take half a minute."""
        messages = {"messages": {self.alice.user_id: {"*": {"text": "hi"}}}}

        got = await self.extensions_after(
            lambda: self.bob.put("/sendToDevice/org.example.x/1", messages)
        )

        self.assertEqual(got["to_device"]["events"][0]["content"], {"text": "hi"})

    async def test_members_who_come_and_go_do(self) -> None:
        """Messages are encrypted for those who are there."""
        carol = await self.register("carol")

        joined = await self.extensions_after(lambda: carol.join(self.room))
        left = await self.extensions_after(lambda: self.bob.leave(self.room))

        self.assertEqual(joined["e2ee"]["device_lists"]["changed"], [carol.user_id])
        self.assertEqual(left["e2ee"]["device_lists"]["left"], [self.bob.user_id])

    async def test_rooms_that_the_user_joins_do(self) -> None:
        """Their members are followed from then on."""
        carol = await self.register("carol")
        room = await carol.create_room(public=True)

        got = await self.extensions_after(lambda: self.alice.join(room))

        self.assertEqual(got["e2ee"]["device_lists"]["changed"], [carol.user_id])

    async def test_keys_do(self) -> None:
        """New keys of others, and what is left of the device's own."""
        keys = {"one_time_keys": {"signed_curve25519:A": {"key": "a", "signatures": {}}}}

        own = await self.extensions_after(lambda: self.alice.post("/keys/upload", keys))
        others = await self.extensions_after(
            lambda: self.bob.put(f"/devices/{self.bob.device_id}", {"display_name": "Phone"})
        )

        self.assertEqual(own["e2ee"]["device_one_time_keys_count"], {"signed_curve25519": 1})
        self.assertEqual(others["e2ee"]["device_lists"]["changed"], [self.bob.user_id])


class AccountDataTests(ExtensionsTestCase):
    async def set(self, name: str, room: str | None = None, **content: Any) -> None:
        """Set account data of Alice."""
        place = "" if room is None else f"/rooms/{room}"
        await self.alice.put(f"/user/{self.alice.user_id}{place}/account_data/{name}", content)

    async def test_global_and_room_data(self) -> None:
        """Settings are the same on all devices."""
        room = await self.alice.create_room()
        await self.set("org.example.a", n=1)
        await self.set("org.example.b", room, n=2)
        client = self.client(self.alice, account_data={})

        first = (await client.sync())["extensions"]["account_data"]
        await self.set("org.example.a", n=3)
        changed = (await client.sync())["extensions"]["account_data"]
        await self.set("org.example.b", room, n=4)
        room_changed = await client.sync()
        after = await client.sync()

        own = {event["type"]: event["content"] for event in first["global"]}
        self.assertEqual(own["org.example.a"], {"n": 1})
        self.assertIn("m.push_rules", own)
        self.assertEqual([event["content"] for event in first["rooms"][room]], [{"n": 2}])
        self.assertEqual([event["content"] for event in changed["global"]], [{"n": 3}])
        self.assertEqual(changed["rooms"], {})
        rooms = room_changed["extensions"]["account_data"]["rooms"]
        self.assertEqual([event["content"] for event in rooms[room]], [{"n": 4}])
        self.assertEqual(room_changed["rooms"], {})
        self.assertEqual(after["extensions"], {})

    async def test_room_outside_of_the_range_catches_up(self) -> None:
        """A tag that was set while a room was not shown is there when it is."""
        room = await self.alice.create_room()
        client = self.client(self.alice, account_data={})
        await client.sync()
        await client.sync(lists={})
        await self.set("org.example.b", room, n=1)
        await client.sync()

        response = await client.sync(lists={"all": window()})

        rooms = response["extensions"]["account_data"]["rooms"]
        self.assertEqual([event["content"] for event in rooms[room]], [{"n": 1}])


class EphemeralTests(ExtensionsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.room = await self.alice.create_room(public=True)
        await self.bob.join(self.room)

    async def test_receipts(self) -> None:
        """A user sees who has read what, of what is shown."""
        old = await self.alice.say(self.room, "old")
        await self.bob.read(self.room, old)
        await self.alice.read(self.room, old)
        new = await self.alice.say(self.room, "new")
        client = self.client(self.alice, receipts={})
        client.body["lists"] = {"all": window(timeline_limit=1)}

        first = (await client.sync())["extensions"]["receipts"]["rooms"][self.room]
        await self.bob.read(self.room, new)
        second = (await client.sync())["extensions"]["receipts"]["rooms"][self.room]
        third = await client.sync()

        self.assertEqual(first["type"], "m.receipt")
        self.assertEqual(first["content"][old]["m.read"].keys(), {self.alice.user_id})
        self.assertEqual(second["content"][new]["m.read"].keys(), {self.bob.user_id})
        self.assertEqual(third["extensions"], {})

    async def test_typing(self) -> None:
        """A user sees who types, and that they have stopped."""
        client = self.client(self.alice, typing={})
        await client.sync()
        waiting = Deferred.fromCoroutine(client.sync(timeout_ms=30_000))
        await self.bob.type(self.room)

        began = (await waiting)["extensions"]["typing"]["rooms"][self.room]
        await self.bob.type(self.room, False)
        ended = (await client.sync())["extensions"]["typing"]["rooms"][self.room]

        self.assertEqual(began["content"]["user_ids"], [self.bob.user_id])
        self.assertEqual(ended["content"]["user_ids"], [])

    async def test_scope_of_an_extension(self) -> None:
        """A client wants to know who types in the room that is open, not in all of them."""
        other = await self.alice.create_room(public=True)
        await self.bob.join(other)
        subscription = {"timeline_limit": 1, "required_state": []}
        client = self.client(self.alice, typing={"lists": []})
        client.body["room_subscriptions"] = {self.room: subscription}
        await client.sync()
        await self.bob.type(self.room)
        await self.bob.type(other)

        first = (await client.sync())["extensions"]["typing"]["rooms"]
        client.body["extensions"]["typing"] = {"enabled": True, "lists": ["all"], "rooms": []}
        second = (await client.sync())["extensions"]["typing"]["rooms"]

        self.assertEqual(first.keys(), {self.room})
        self.assertIn(other, second)
