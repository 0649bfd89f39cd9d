"""Application services receive what concerns them: in order, once, whatever happens."""

import time
from typing import Any

import psycopg
import yaml

from appservices.transactions import delivery
from homeserver.concurrency.backoff import RetrySchedule
from homeserver.storage.appservices.transactions import request_move, requested_moves
from homeserver.streams import durable_reader
from homeserver.streams.positions import position_at
from tests.appservices.bridge import Bridge
from tests.appservices.fake_bridge import TRANSACTIONS, Answer
from tests.appservices.support import HS_TOKEN, AppserviceTestCase, registration
from tests.support.reactor import pause, until


class TransactionTestCase(AppserviceTestCase):
    """A server with a bridge, `irc`, that listens."""

    registered: dict[str, Any] = {}  # noqa: RUF012  # replaced by subclasses, never changed

    async def setUp(self) -> None:
        self.bridge = Bridge(f"{HS_TOKEN} irc")
        self.bridge.listen()
        url = self.bridge.url
        self.addCleanup(self.bridge.stop)
        self.registrations = (registration("irc", url=url, **self.registered),)
        await super().setUp()


class TransactionTests(TransactionTestCase):
    async def test_events_of_rooms_with_a_ghost(self) -> None:
        """People talk to somebody on IRC."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        other = await alice.create_room(public=True)
        await alice.say(room, "before")
        ghost = await self.ghost("_irc_bob")
        await ghost.join(room)
        await alice.say(other, "private")
        event_id = await alice.say(room, "hello")

        await self.bridge.until(lambda: "hello" in self.bridge.messages())

        self.assertEqual(self.bridge.messages(), ["hello"])
        self.assertEqual(self.bridge.events[-1]["event_id"], event_id)
        self.assertEqual(self.bridge.events[-1]["room_id"], room)
        self.assertEqual(self.bridge.events[0]["state_key"], "@_irc_bob:example.org")
        self.assertEqual(self.bridge.most_in_flight, 1)

    async def test_an_outage_loses_and_doubles_nothing(self) -> None:
        """The bridge is restarted while people talk."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        await (await self.ghost("_irc_bob")).join(room)
        # So that the reader falls behind, and continues from the database.
        self.patch(durable_reader, "MAX_QUEUED", 20)
        self.patch(delivery, "MAX_WAITING", 10)
        self.bridge.status = 500
        for number in range(100):
            await alice.say(room, str(number))
        self.bridge.status = 200

        await self.bridge.until(lambda: "99" in self.bridge.messages())

        self.assertEqual(self.bridge.messages(), [str(number) for number in range(100)])

    async def test_a_restart_of_the_server(self) -> None:
        """What the bridge did not take before the restart, it gets after it, with the same id."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        await (await self.ghost("_irc_bob")).join(room)
        await self.bridge.until(lambda: len(self.bridge.events) == 1)
        self.bridge.status = 500
        await alice.say(room, "one")
        await self.bridge.until(lambda: len(self.bridge.transactions) == 2)
        await alice.say(room, "two")
        await self.restart_server(alice)
        self.bridge.status = 200
        await alice.say(room, "three")

        await self.bridge.until(lambda: "three" in self.bridge.messages())

        self.assertEqual(self.bridge.messages(), ["one", "two", "three"])
        repeated = [
            each.path
            for each in self.bridge.transactions
            if each.body["events"][0]["content"].get("body") == "one"
        ]
        self.assertEqual(len(set(repeated)), 1)
        self.assertGreater(len(repeated), 1)

    async def test_a_dead_bridge_keeps_nothing_from_another(self) -> None:
        """Each application service has a queue of its own."""
        other = Bridge(f"{HS_TOKEN} other")
        other.listen()
        url = other.url
        self.addCleanup(other.stop)
        (self._directory / "appservices.d" / "other.yaml").write_text(
            yaml.safe_dump(registration("other", url=url))
        )
        self.server.reload()
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        await (await self.ghost("_irc_bob")).join(room)
        await until(lambda: self.server.parts.account_core.appservices.by_id("other") is not None)
        await (await self.ghost("_other_bob", "other")).join(room)
        self.bridge.hangs = True

        await alice.say(room, "hello")

        await other.until(lambda: "hello" in other.messages())

    async def test_an_invite(self) -> None:
        """Somebody starts a chat with a ghost."""
        alice = await self.register("alice")
        ghost = await self.ghost("_irc_bob")

        room = await alice.create_room(invite=[ghost])

        await self.bridge.until(lambda: len(self.bridge.events) == 1)
        event = self.bridge.events[0]
        self.assertEqual((event["type"], event["room_id"]), ("m.room.member", room))
        self.assertEqual(event["content"]["membership"], "invite")

    async def test_what_a_ghost_misses_after_it_was_kicked(self) -> None:
        """A bridge does not read rooms that its users are not in any more."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        ghost = await self.ghost("_irc_bob")
        await ghost.join(room)
        await alice.kick(room, ghost)
        await alice.say(room, "private")
        await ghost.join(room)

        await self.bridge.until(lambda: len(self.bridge.events) == 3)

        self.assertEqual(
            [each["content"]["membership"] for each in self.bridge.events],
            ["join", "leave", "join"],
        )

    async def test_the_past_is_seen_as_it_was(self) -> None:
        """A bridge that was away for long gets what concerned its users then."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        ghost = await self.ghost("_irc_bob")
        await ghost.join(room)
        await self.bridge.until(lambda: len(self.bridge.events) == 1)
        await self.stop_server()
        # As if the entries had been published, but the reader had not come so far.
        with psycopg.connect(self.dsn) as connection:
            [(position,)] = connection.execute(
                "SELECT position FROM reader_positions WHERE reader = 'appservice irc'"
            ).fetchall()
        await self.start_server()
        alice.url = ghost.url = self.url
        await alice.say(room, "one")
        await ghost.leave(room)
        await alice.say(room, "private")
        await ghost.join(room)
        await alice.say(room, "two")
        await self.bridge.until(lambda: "two" in self.bridge.messages())
        live = self.bridge.events
        await self.stop_server()
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "UPDATE reader_positions SET position = %s WHERE reader = 'appservice irc'",
                (position,),
            )
            connection.execute("DELETE FROM appservice_transactions")
        self.bridge.received.clear()
        await self.start_server()
        await self.bridge.until(lambda: "two" in self.bridge.messages())

        self.assertEqual(
            [each["event_id"] for each in self.bridge.events],
            [each["event_id"] for each in live[1:]],
        )

    async def test_garbage_in_answers_is_not_read(self) -> None:
        """Only the status matters."""
        self.bridge.body = b"x" * 10_000_000
        ghost = await self.ghost("_irc_bob")
        await ghost.create_room()
        await ghost.create_room()

        await self.bridge.until(lambda: len(self.bridge.events) > 8)

        self.assertEqual(
            len({each.path for each in self.bridge.transactions}), len(self.bridge.transactions)
        )

    async def test_redirects_are_not_followed(self) -> None:
        """A bridge that sends us in circles gets its events once it stops that."""
        self.bridge.answers[TRANSACTIONS] = lambda asked: Answer(
            307, headers={"Location": asked.path}
        )
        ghost = await self.ghost("_irc_bob")
        await ghost.create_room()
        await until(lambda: len(self.bridge.transactions) >= 2)
        self.assertEqual(len({each.path for each in self.bridge.transactions}), 1)
        self.bridge.answers.clear()

        await self.bridge.until(lambda: self.bridge.events != [])

    async def test_a_ping_ends_a_pause(self) -> None:
        """A bridge that starts again pings, and does not wait for the next attempt."""
        self.patch(delivery, "RETRIES", RetrySchedule((3_600.0,)))
        self.bridge.status = 500
        ghost = await self.ghost("_irc_bob")
        await ghost.create_room()
        await until(lambda: self.bridge.transactions != [])
        self.bridge.status = 200

        await self.bot().request("POST", "/_matrix/client/v1/appservice/irc/ping", {})

        await self.bridge.until(lambda: self.bridge.events != [])


class MoveTests(TransactionTestCase):
    async def test_skip_and_replay(self) -> None:
        """An administrator leaves out what the bridge chokes on, and sends it again later."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        await (await self.ghost("_irc_bob")).join(room)
        await self.bridge.until(lambda: len(self.bridge.events) == 1)
        began = time.time()
        self.bridge.status = 500
        await alice.say(room, "one")
        await self.bridge.until(lambda: len(self.bridge.transactions) > 1)
        db = self.server.parts.db
        await db.run(request_move, "irc", None)
        self.server.reload()
        while await db.run(requested_moves):
            await pause(0.02)
        self.bridge.status = 200
        await alice.say(room, "two")
        await self.bridge.until(lambda: "two" in self.bridge.messages())
        self.assertEqual(self.bridge.messages(), ["two"])

        await self.stop_server()
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "INSERT INTO appservice_moves VALUES ('irc', %s)", (position_at(began),)
            )
        await self.start_server()

        await self.bridge.until(lambda: len(self.bridge.messages()) == 3)
        self.assertEqual(self.bridge.messages(), ["two", "one", "two"])


class RoomNamespaceTests(TransactionTestCase):
    registered = {  # noqa: RUF012
        "namespaces": {"aliases": [{"exclusive": True, "regex": "#_irc_.*"}]}
    }

    async def test_a_room_with_an_alias_of_the_bridge(self) -> None:
        """All events of a portal room are bridged, even without a user of the bridge in it."""
        alice = await self.register("alice")
        bot = self.bot()
        room = await bot.create_room(preset="public_chat", room_alias_name="_irc_matrix")
        await alice.join(room)
        await bot.leave(room)
        await self.bridge.until(lambda: len(self.bridge.events) == 8)
        await alice.say(room, "hello")
        await self.bridge.until(lambda: "hello" in self.bridge.messages())

        await self.restart_server(alice)
        await alice.say(room, "again")

        await self.bridge.until(lambda: "again" in self.bridge.messages())


class EphemeralTests(TransactionTestCase):
    registered = {"receive_ephemeral": True}  # noqa: RUF012

    async def test_typing_receipts_and_presence(self) -> None:
        """People on IRC see who types and who has read."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        ghost = await self.ghost("_irc_bob")
        await ghost.join(room)
        event_id = await alice.say(room, "hello")
        await alice.put(f"/rooms/{room}/typing/{alice.user_id}", {"typing": True, "timeout": 9000})
        # They are stored together, but only one of them concerns the bridge.
        markers = {"m.read": event_id, "m.read.private": event_id}
        await alice.post(f"/rooms/{room}/read_markers", markers)
        await ghost.post(f"/rooms/{room}/receipt/m.read.private/{event_id}")
        await alice.put(f"/presence/{alice.user_id}/status", {"presence": "unavailable"})

        def found() -> dict[str, Any]:
            return {each["type"]: each for each in self.bridge.of("ephemeral")}

        await self.bridge.until(lambda: len(found()) == 3 and "unavailable" in str(found()))

        typing = [each for each in self.bridge.of("ephemeral") if each["type"] == "m.typing"]
        self.assertEqual(typing[0]["room_id"], room)
        self.assertEqual(typing[0]["content"], {"user_ids": [alice.user_id]})
        receipts = [each for each in self.bridge.of("ephemeral") if each["type"] == "m.receipt"]
        readers: dict[str, set[str]] = {}
        for each in receipts:
            self.assertEqual(each["room_id"], room)
            for receipt_type, users in each["content"][event_id].items():
                readers.setdefault(receipt_type, set()).update(users)
        self.assertEqual(readers, {"m.read": {alice.user_id}, "m.read.private": {ghost.user_id}})
        self.assertEqual(found()["m.presence"]["sender"], alice.user_id)
        self.assertEqual(
            self.bridge.of("ephemeral"), self.bridge.of("de.sorunome.msc2409.ephemeral")
        )

    async def test_presence_after_a_restart(self) -> None:
        """Nothing was said since in the room that the ghost shares with her."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        await (await self.ghost("_irc_bob")).join(room)
        dave = await self.register("dave")
        await self.restart_server(alice, dave)
        self.bridge.received.clear()

        for each in (dave, alice):
            await each.put(f"/presence/{each.user_id}/status", {"presence": "unavailable"})

        await self.bridge.until(lambda: self.bridge.of("ephemeral") != [])
        senders = {each["sender"] for each in self.bridge.of("ephemeral")}
        self.assertEqual(senders, {alice.user_id})


class EncryptionTests(TransactionTestCase):
    registered = {"org.matrix.msc3202": True}  # noqa: RUF012

    async def test_messages_lists_and_counts(self) -> None:
        """What a bridge needs to encrypt and decrypt arrives with the events."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        bot = self.bot()
        bot.device_id = (
            await bot.post(
                "/login",
                {
                    "type": "m.login.application_service",
                    "identifier": {"type": "m.id.user", "user": bot.user_id},
                },
            )
        )["device_id"]
        await bot.join(room)
        await alice.join(room)
        await alice.put(
            "/sendToDevice/m.test/1",
            {"messages": {bot.user_id: {bot.device_id: {"secret": 1}}}},
        )
        await self.bridge.until(lambda: self.bridge.of("to_device") != [])

        (message,) = self.bridge.of("to_device")
        self.assertEqual(
            message,
            {
                "type": "m.test",
                "sender": alice.user_id,
                "content": {"secret": 1},
                "to_user_id": bot.user_id,
                "to_device_id": bot.device_id,
            },
        )
        body = next(each for each in self.bridge.received.values() if "to_device" in each)
        for prefix in ("", "org.matrix.msc3202."):
            self.assertEqual(
                body[f"{prefix}device_one_time_keys_count"],
                {bot.user_id: {bot.device_id: {"signed_curve25519": 0}}},
            )
        await self.log_in(alice)
        changed = {"changed": [alice.user_id], "left": []}
        await self.bridge.until(
            lambda: changed in [each.get("device_lists") for each in self.bridge.received.values()]
        )
