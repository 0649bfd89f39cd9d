"""Sending messages and redactions over the API."""

from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, gatherResults

from tests.support.actors import bodies
from tests.support.server import ServerTestCase


class SendingTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.room = await self.alice.create_room(public=True)
        await self.bob.join(self.room)

    async def test_message_is_there_for_the_others(self) -> None:
        """Other members receive the messages of a user."""
        event_id = await self.alice.say(self.room, "Hello")

        event = await self.bob.event(self.room, event_id)

        self.assertEqual(event["content"], {"msgtype": "m.text", "body": "Hello"})
        self.assertEqual(event["sender"], self.alice.user_id)
        self.assertEqual(event["room_id"], self.room)
        self.assertEqual(event["unsigned"]["membership"], "join")

    async def test_repeated_request_makes_one_event(self) -> None:
        """A client that did not get the answer asks again, also after the server restarted."""
        first = await self.alice.say(self.room, "once", txn_id="a/b")
        again = await self.alice.say(self.room, "once", txn_id="a/b")
        await self.restart_server(self.alice, self.bob)
        later = await self.alice.say(self.room, "once", txn_id="a/b")

        self.assertEqual({first, again, later}, {first})
        page = await self.bob.messages(self.room)
        self.assertEqual(bodies(page["chunk"]), ["once"])

    async def test_each_request_without_transaction_makes_an_event(self) -> None:
        """A script that posts a line to a room needs no transaction ids."""
        path = f"/rooms/{self.room}/send/m.room.message"
        content = {"msgtype": "m.text", "body": "again"}

        first = (await self.alice.post(path, content))["event_id"]
        second = (await self.alice.post(path, content))["event_id"]

        self.assertNotEqual(first, second)
        shown = await self.alice.event(self.room, second)
        self.assertEqual(shown["content"], content)
        self.assertNotIn("transaction_id", shown["unsigned"])

    async def test_repeated_request_at_the_same_time_makes_one_event(self) -> None:
        """An impatient client does not say everything twice."""
        attempts = [
            Deferred.fromCoroutine(self.alice.say(self.room, "once", txn_id="t")) for _ in range(5)
        ]

        event_ids = await gatherResults(attempts)

        self.assertEqual(len(set(event_ids)), 1)

    async def test_transaction_ids_are_the_devices_own(self) -> None:
        """Two devices that count from one do not swallow each other's messages."""
        phone = await self.log_in(self.alice)

        first = await self.alice.say(self.room, "from the desk", txn_id="1")
        second = await phone.say(self.room, "from the phone", txn_id="1")

        self.assertNotEqual(first, second)
        shown = await self.alice.event(self.room, first)
        self.assertEqual(shown["unsigned"]["transaction_id"], "1")
        other_room = await phone.event(self.room, first)
        self.assertNotIn("transaction_id", other_room["unsigned"])

    async def test_transaction_id_used_for_another_path_is_another_request(self) -> None:
        """A client that counts from one for each kind of request loses nothing."""
        other = await self.alice.create_room()
        targets = [await self.alice.say(self.room, text, txn_id=text) for text in ("one", "two")]
        message = {"msgtype": "m.text", "body": "x"}
        requests: list[tuple[str, Any]] = [
            (f"/rooms/{self.room}/send/m.room.message/1", message),
            (f"/rooms/{other}/send/m.room.message/1", message),
            (f"/rooms/{self.room}/send/org.example.other/1", message),
            (f"/rooms/{self.room}/send/m.room.redaction/1", {"redacts": targets[0]}),
            *((f"/rooms/{self.room}/redact/{target}/1", {}) for target in targets),
        ]

        async def send_all() -> list[str]:
            return [(await self.alice.put(path, body))["event_id"] for path, body in requests]

        first = await send_all()
        again = await send_all()
        await self.restart_server(self.alice)
        later = await send_all()

        self.assertEqual(len(set(first)), len(requests))
        self.assertEqual((again, later), (first, first))
        for target in targets:
            self.assertEqual((await self.alice.event(self.room, target))["content"], {})

    async def test_path_is_the_same_however_it_is_written(self) -> None:
        """Unnecessary escapes in a path do not make it another request."""
        message = {"msgtype": "m.text", "body": "x"}
        plain = f"/rooms/{self.room}/send/m.room.message/1"
        escaped = f"/rooms/{quote(self.room, safe='')}/send/m%2Eroom%2Emessage/%31"

        first = await self.alice.put(plain, message)

        self.assertEqual(await self.alice.put(escaped, message), first)

    async def test_who_is_not_in_the_room_cannot_send(self) -> None:
        """Rooms are for their members."""
        carol = await self.register("carol")

        await self.assert_refused("M_FORBIDDEN", carol.say(self.room, "psst"), 403)

    async def test_oversized_event_is_refused(self) -> None:
        """A client learns why its paste did not go through."""
        await self.assert_refused("M_TOO_LARGE", self.alice.say(self.room, "x" * 70_000), 413)

    async def test_content_that_no_server_could_verify_is_refused(self) -> None:
        """Fractions have no canonical form, so no signature could hold."""
        await self.assert_refused(
            "M_BAD_JSON", self.alice.send(self.room, "m.room.message", {"size": 1.5}), 400
        )
        await self.assert_refused(
            "M_BAD_JSON", self.alice.send(self.room, "m.room.message", ["text"]), 400
        )
        await self.assert_refused(
            "M_NOT_JSON", self.alice.send(self.room, "m.room.message", b"{text"), 400
        )

    async def test_event_types_may_hold_any_character(self) -> None:
        """Types are chosen by applications, slashes and all."""
        event_id = await self.alice.send(self.room, "org.example/odd type é", {"a": [1]})

        event = await self.bob.event(self.room, event_id)

        self.assertEqual(event["type"], "org.example/odd type é")

    async def test_redacted_event_has_lost_its_content(self) -> None:
        """Redacted content is shown to no user again, in any room version."""
        for version in ("1", "10", "11", "12"):
            room = await self.alice.create_room(room_version=version)
            event_id = await self.alice.say(room, "regret")

            redaction_id = await self.alice.redact(room, event_id, reason="typo")

            event = await self.alice.event(room, event_id)
            self.assertEqual(event["content"], {})
            because = event["unsigned"]["redacted_because"]
            self.assertEqual(because["event_id"], redaction_id)
            self.assertEqual(event["unsigned"]["redacted_by"], redaction_id)
            self.assertEqual(because["content"]["reason"], "typo")
            redaction = await self.alice.event(room, redaction_id)
            self.assertEqual(redaction["redacts"], event_id)
            self.assertEqual(redaction["content"]["redacts"], event_id)

    async def test_redaction_without_a_transaction_is_sent(self) -> None:
        """Scripts redact as they send: each request is one of its own."""
        event_id = await self.alice.say(self.room, "regret")
        path = f"/rooms/{quote(self.room)}/redact/{quote(event_id, safe='')}"

        response = await self.alice.post(path, {})

        event = await self.alice.event(self.room, event_id)
        self.assertEqual(event["unsigned"]["redacted_by"], response["event_id"])

    async def test_redaction_can_be_sent_as_an_event(self) -> None:
        """Clients may use one path for everything that they send."""
        event_id = await self.alice.say(self.room, "regret")

        await self.alice.send(self.room, "m.room.redaction", {"redacts": event_id})

        self.assertEqual((await self.bob.event(self.room, event_id))["content"], {})

    async def test_event_of_another_room_cannot_be_redacted(self) -> None:
        """A redaction that could have no effect is refused instead of being sent."""
        other_room = await self.alice.create_room()
        event_id = await self.alice.say(other_room, "here")

        redaction = self.alice.redact(self.room, event_id)

        await self.assert_refused("M_INVALID_PARAM", redaction, 400)
        self.assertEqual((await self.alice.event(other_room, event_id))["content"]["body"], "here")

    async def test_redaction_outlives_a_restart(self) -> None:
        """Redacted content is not shown again after a restart."""
        event_id = await self.alice.say(self.room, "regret")
        await self.alice.redact(self.room, event_id)

        await self.restart_server(self.alice)

        self.assertEqual((await self.alice.event(self.room, event_id))["content"], {})

    async def test_only_the_powerful_redact_what_others_said(self) -> None:
        """Moderators clean up; members cannot silence each other."""
        by_alice = await self.alice.say(self.room, "mine")
        by_bob = await self.bob.say(self.room, "yours")

        await self.assert_refused("M_FORBIDDEN", self.bob.redact(self.room, by_alice), 403)
        await self.alice.redact(self.room, by_bob)

        self.assertEqual((await self.bob.event(self.room, by_bob))["content"], {})
        self.assertNotEqual((await self.bob.event(self.room, by_alice))["content"], {})

    async def test_redaction_as_state_redacts_nothing(self) -> None:
        """A user cannot bypass the check of redactions at another endpoint."""
        for version in ("10", "11", "12"):
            room = await self.alice.create_room(public=True, room_version=version)
            await self.alice.set_state(room, "m.room.power_levels", {"state_default": 0, "ban": 50})
            await self.bob.join(room)
            said = await self.alice.say(room, "mine")

            attempt = self.bob.set_state(room, "m.room.redaction", {"redacts": said}, "k")

            await self.assert_refused("M_FORBIDDEN", attempt, 403)
            self.assertNotEqual((await self.bob.event(room, said))["content"], {})
            self.assertNotIn(("m.room.redaction", "k"), await self.alice.full_state(room))

    async def test_room_is_not_created_with_a_redaction_in_it(self) -> None:
        """A type that no state event can have is refused in the initial state too."""
        redaction = {"type": "m.room.redaction", "content": {"redacts": "$event"}}

        attempt = self.bob.create_room(initial_state=[redaction])

        await self.assert_refused("M_INVALID_ROOM_STATE", attempt, 400)

    async def test_restarted_server_has_the_same_rooms(self) -> None:
        """Members, power and history are as they were."""
        before = await self.alice.say(self.room, "before")
        await self.restart_server(self.alice, self.bob)

        after = await self.bob.say(self.room, "after")

        page = await self.alice.messages(self.room, limit=2)
        self.assertEqual([event["event_id"] for event in page["chunk"]], [after, before])


class SuspendedTests(ServerTestCase):
    async def test_suspended_user_reads_and_leaves_and_says_nothing(self) -> None:
        """A suspension stops abuse without cutting the user off."""
        alice, bob = await self.register("alice"), await self.register("bob")
        room = await alice.create_room(public=True)
        await bob.join(room)
        said = await bob.say(room, "before")
        await self._suspend(bob.user_id)

        refused = [
            bob.say(room, "after"),
            bob.create_room(),
            bob.set_state(room, "m.room.name", {"name": "x"}),
            bob.invite(room, alice),
            bob.join(await alice.create_room(public=True)),
        ]

        for attempt in refused:
            await self.assert_refused("M_USER_SUSPENDED", attempt, 403)
        await bob.messages(room)
        await bob.redact(room, said)
        await bob.leave(room)

    async def _suspend(self, user_id: str) -> None:
        admin = await self.register_admin("admin")
        path = f"/_matrix/client/v1/admin/suspend/{quote(user_id)}"
        await admin.request("PUT", path, {"suspended": True})
