"""What application services send: once for each transaction id, at the time that they choose."""

from typing import Any
from urllib.parse import quote

from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.appservices.support import AppserviceTestCase, registration
from tests.support.actors import CLIENT, Actor

HELLO = {"msgtype": "m.text", "body": "hello"}
SHARED = [{"exclusive": False, "regex": "@shared_.*"}]
LONG_AGO = 1_000_000_000_000


def _message_path(room: str, txn_id: str) -> str:
    return f"{CLIENT}/rooms/{quote(room)}/send/m.room.message/{txn_id}"


class TransactionTests(AppserviceTestCase):
    registrations = (
        registration("irc", namespaces={"users": SHARED}),
        registration("xmpp", namespaces={"users": SHARED}),
    )

    async def test_a_repeated_request_makes_one_event(self) -> None:
        """A bridge that got no response repeats its request, also after a restart."""
        ghost = await self.ghost("shared_bob")
        room = await ghost.create_room()

        first = await ghost.say(room, "hello", txn_id="1")
        repeated = await ghost.say(room, "hello", txn_id="1")
        await self.restart_server()
        ghost = self.as_user("shared_bob")
        restarted = await ghost.say(room, "hello", txn_id="1")

        self.assertEqual([first, first], [repeated, restarted])

    async def test_a_repeated_redaction_makes_one_event(self) -> None:
        """The same for redactions."""
        ghost = await self.ghost("shared_bob")
        room = await ghost.create_room()
        target = await ghost.say(room, "hello")
        path = f"/rooms/{quote(room)}/redact/{quote(target, safe='')}/1"

        self.assertEqual(await ghost.put(path, {}), await ghost.put(path, {}))

    async def test_each_requester_has_transactions_of_its_own(self) -> None:
        """Two bridges, and a device, of one user do not know each other's ids."""
        ghost = await self.ghost("shared_bob")
        room = await ghost.create_room()
        other_bridge = self.as_user("shared_bob", "xmpp")
        device = self.as_user("shared_bob")
        device.device_id = "PHONE"
        await ghost.put("/devices/PHONE", {})

        sent = [await each.say(room, "hi", txn_id="1") for each in (ghost, other_bridge, device)]

        self.assertEqual(len(set(sent)), 3)
        for requester, own in zip((ghost, other_bridge, device), sent, strict=True):
            events = {each: await requester.event(room, each) for each in sent}
            seen = {each for each in sent if "transaction_id" in events[each]["unsigned"]}
            self.assertEqual(seen, {own})

    async def test_a_repeated_message_to_devices_is_delivered_once(self) -> None:
        """The same for messages to devices."""
        alice = await self.register("alice")
        ghost = await self.ghost("shared_bob")
        body = {"messages": {alice.user_id: {"*": {"said": "hello"}}}}

        await ghost.put("/sendToDevice/m.test/1", body)
        await ghost.put("/sendToDevice/m.test/1", body)
        await self.as_user("shared_bob", "xmpp").put("/sendToDevice/m.test/1", body)

        received = (await alice.sync())["to_device"]["events"]
        self.assertEqual(len(received), 2)

    async def test_no_device_has_the_scope_of_an_application_service(self) -> None:
        """Nobody logs in to a device whose transactions are those of a bridge."""
        await self.register("alice")

        login = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": "the password of alice",
            "device_id": "\x1firc",
        }
        await self.assert_refused("M_INVALID_PARAM", self.anybody.post("/login", login), 400)


class TimestampTests(AppserviceTestCase):
    async def _put(self, actor: Actor, path: str, body: Any, ts: object) -> str:
        answer = await actor.request("PUT", path, body, {"ts": ts})
        event_id: str = answer["event_id"]
        return event_id

    async def test_a_message_has_the_chosen_time(self) -> None:
        """A bridge tells when a message was really sent; its place in the room is the end."""
        bob = await self.ghost("_irc_bob")
        for version in ROOM_VERSIONS:
            room = await bob.create_room(room_version=version)
            before = await bob.say(room, "before")

            event_id = await self._put(bob, _message_path(room, "1"), HELLO, LONG_AGO)

            event = await bob.event(room, event_id)
            self.assertEqual(event["origin_server_ts"], LONG_AGO)
            history = [each["event_id"] for each in (await bob.messages(room))["chunk"][:2]]
            self.assertEqual(history, [event_id, before])

    async def test_state_has_the_chosen_time(self) -> None:
        """State, and memberships that are sent as state, too."""
        bob, carol = await self.ghost("_irc_bob"), await self.ghost("_irc_carol")
        room = await bob.create_room()
        state = f"{CLIENT}/rooms/{quote(room)}/state"

        topic = await self._put(bob, f"{state}/m.room.topic/", {"topic": "old"}, 1)
        member = f"{state}/m.room.member/{quote(carol.user_id)}"
        invite = await self._put(bob, member, {"membership": "invite"}, 2)
        join = await self._put(carol, member, {"membership": "join"}, 3)
        named = await self._put(carol, member, {"membership": "join", "displayname": "C"}, 4)
        kick = await self._put(bob, member, {"membership": "leave"}, 5)
        ban = await self._put(bob, member, {"membership": "ban"}, 6)
        unban = await self._put(bob, member, {"membership": "leave"}, 0)

        sent = (topic, invite, join, named, kick, ban, unban)
        times = [(await bob.event(room, each))["origin_server_ts"] for each in sent]
        self.assertEqual(times, [1, 2, 3, 4, 5, 6, 0])

    async def test_a_redaction_that_is_sent_as_an_event_has_the_chosen_time(self) -> None:
        """The endpoint for redactions has no timestamps, so bridges send the event."""
        bob = await self.ghost("_irc_bob")
        room = await bob.create_room()
        target = await bob.say(room, "hello")
        path = f"{CLIENT}/rooms/{quote(room)}/send/m.room.redaction/1"

        redaction = await self._put(bob, path, {"redacts": target}, LONG_AGO)

        self.assertEqual((await bob.event(room, redaction))["origin_server_ts"], LONG_AGO)
        self.assertEqual((await bob.event(room, target))["content"], {})

    async def test_an_invalid_time_is_refused(self) -> None:
        """Only what an event may have."""
        bob = await self.ghost("_irc_bob")
        room = await bob.create_room()
        path = _message_path(room, "1")

        for ts in ("", "x", "-1", "1.5", "1e3", "١", 2**53, 10**400, ["1", "2"]):
            with self.subTest(ts=ts):
                await self.assert_refused("M_INVALID_PARAM", self._put(bob, path, HELLO, ts), 400)

    async def test_the_time_of_others_is_ignored(self) -> None:
        """An ordinary client cannot write into the past."""
        alice = await self.register("alice")
        room = await alice.create_room()

        event_id = await self._put(alice, _message_path(room, "1"), HELLO, LONG_AGO)
        state = f"{CLIENT}/rooms/{quote(room)}/state/m.room.topic/"
        topic = await self._put(alice, state, {"topic": "new"}, "invalid")

        for each in (event_id, topic):
            self.assertGreater((await alice.event(room, each))["origin_server_ts"], LONG_AGO * 1.5)

    async def test_events_are_found_by_their_chosen_times(self) -> None:
        """A jump to a date works in rooms whose times are out of order."""
        bob = await self.ghost("_irc_bob")
        room = await bob.create_room()
        old = await self._put(bob, _message_path(room, "1"), HELLO, LONG_AGO)
        await bob.say(room, "after")

        path = f"/_matrix/client/v1/rooms/{quote(room)}/timestamp_to_event"
        found = await bob.request("GET", path, None, {"ts": LONG_AGO + 1, "dir": "b"})

        self.assertEqual(found, {"event_id": old, "origin_server_ts": LONG_AGO})
