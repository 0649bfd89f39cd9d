"""Rooms with a policy server, which a test plays.

Spec: https://spec.matrix.org/v1.19/server-server-api/#policy-servers
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from homeserver.protocol.events import Event
from homeserver.protocol.policy_servers import KEY_ID
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.protocol.signing.unpadded_base64 import encode_base64
from tests.support.actors import Actor, bodies
from tests.support.fake_server.fake_http import FAILURE, GARBAGE, Answer, Break, Received, always
from tests.support.organisations import FederationTestCase
from tests.support.room_graph import RoomGraph

KEY = SigningKey.from_seed("policy_server", b"p" * 32)
OPERATION = "ask_policy_server_to_sign"
SPAM = Answer(400, {"errcode": "M_FORBIDDEN", "error": "This looks like spam"})


class PolicyServerTestCase(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.guard = await self.fake()
        self.guard.answers[OPERATION] = self.sign
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.room_id = await self.alice.create_room(public=True)
        self.mallory = self.guard.user("mallory")
        self.room: RoomGraph = await self.guard.join(self.here.name, self.room_id, self.mallory)
        await self.name_policy_server()

    async def name_policy_server(self, key: SigningKey = KEY) -> None:
        """Put the policy server into the room's state."""
        content = {"via": self.guard.name, "public_keys": {"ed25519": key.verify_key}}
        await self.alice.set_state(self.room_id, "m.room.policy", content)

    def sign(self, request: Received) -> Answer:
        """Sign every event."""
        event = Event.from_pdu(self.room.version, request.body)
        signature = encode_base64(KEY.sign(event.signing_bytes()))
        return Answer(200, {self.guard.name: {KEY_ID: signature}})

    def refuse(self, is_spam: Callable[[dict[str, Any]], bool]) -> None:
        """Refuse events of this kind."""
        self.guard.answers[OPERATION] = lambda request: (
            SPAM if is_spam(request.body) else self.sign(request)
        )

    @property
    def signing_requests(self) -> list[dict[str, Any]]:
        """The events that the policy server was asked to sign."""
        return [one.body for one in self.guard.received if one.operation == OPERATION]

    async def said(self, actor: Actor | None = None) -> list[str]:
        """The messages that a member sees, the newest first."""
        actor = actor or self.alice
        return bodies((await actor.messages(self.room_id, limit=50))["chunk"])

    def is_signed(self, event: Event) -> bool:
        """Whether an event has the policy server's signature."""
        return KEY_ID in event.signatures.get(self.guard.name, {})


class SendingTests(PolicyServerTestCase):
    async def test_a_message_is_signed_before_it_is_sent(self) -> None:
        """All servers in the room can verify that it was recommended."""
        said = await self.alice.say(self.room_id, "hello")

        heard = await self.guard.hears(said)
        self.assertTrue(self.is_signed(heard))
        self.assertEqual(
            [event["content"].get("body") for event in self.signing_requests], ["hello"]
        )
        self.assertEqual(await self.said(), ["hello"])

    async def test_a_refused_message_is_sent_nowhere(self) -> None:
        """The client gets the reason; no user of any server sees the message."""
        self.refuse(lambda event: event["content"].get("body") == "buy")

        refusal = await self.assert_refused(
            "M_FORBIDDEN", self.alice.say(self.room_id, "buy", txn_id="t"), 403
        )
        self.assertEqual(refusal.body["error"], "This looks like spam")
        last = await self.alice.say(self.room_id, "good", txn_id="t")

        heard = await self.guard.hears(last)
        self.assertEqual(await self.said(), ["good"])
        self.assertNotIn("buy", [pdu["content"].get("body") for pdu in self.guard.pdus])
        self.assertEqual(heard.depth, (await self.guard.hears(heard.prev_event_ids[0])).depth + 1)

    async def test_moderators_can_remove_a_failing_policy_server(self) -> None:
        """Otherwise the room would be closed permanently."""
        for answer in (FAILURE, GARBAGE, Break(), SPAM):
            self.guard.answers[OPERATION] = always(answer)
            attempt = self.alice.say(self.room_id, "hello")
            refusal = await self.assertFailure(Deferred.fromCoroutine(attempt), Exception)
            self.assertIn(refusal.status, (403, 502))

        await self.alice.set_state(self.room_id, "m.room.policy", {})

        await self.alice.say(self.room_id, "free")
        self.assertEqual(await self.said(), ["free"])

    async def test_a_signature_that_is_none_is_no_recommendation(self) -> None:
        """By another key, of another event, or nothing at all."""
        for answer in (
            {},
            {self.guard.name: {}},
            {self.guard.name: {"ed25519:1": "AAAA"}},
            {self.guard.name: {KEY_ID: "not base64!"}},
            {self.guard.name: {KEY_ID: encode_base64(KEY.sign(b"{}"))}},
        ):
            self.guard.answers[OPERATION] = always(Answer(200, answer))
            await self.assert_refused("M_FORBIDDEN", self.alice.say(self.room_id, "x"), 403)
        self.guard.answers[OPERATION] = self.sign
        await self.name_policy_server(SigningKey.from_seed("policy_server", b"n" * 32))

        await self.assert_refused("M_FORBIDDEN", self.alice.say(self.room_id, "x"), 403)

    async def test_errors_are_those_of_the_policy_server(self) -> None:
        """A client that is too fast gets a wait time; one without permission gets the reason."""
        for status, body, errcode, told in (
            (429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 7}, "M_LIMIT_EXCEEDED", 429),
            (404, {"errcode": "M_NOT_FOUND", "error": "Unknown room"}, "M_NOT_FOUND", 404),
            (404, {"errcode": "M_UNRECOGNIZED"}, "M_FORBIDDEN", 403),
            (401, {"errcode": "M_UNKNOWN_TOKEN"}, "M_UNKNOWN", 502),
        ):
            self.guard.answers[OPERATION] = always(Answer(status, body))
            await self.assert_refused(errcode, self.alice.say(self.room_id, "x"), told)

    async def test_a_server_without_users_in_the_room_is_not_asked(self) -> None:
        """A room cannot make an uninvolved server check its events."""
        leave = self.room.member(self.mallory, "leave")
        await self.guard.send(self.here.name, [leave])
        self.guard.received.clear()

        await self.alice.say(self.room_id, "hello")

        self.assertEqual((self.signing_requests, await self.said()), ([], ["hello"]))

    async def test_many_at_once_all_arrive(self) -> None:
        """While the policy server thinks about one message, others are sent."""
        bob = await self.here.register("bob")
        await bob.join(self.room_id)
        sending = [
            Deferred.fromCoroutine(actor.say(self.room_id, f"{number}"))
            for number in range(12)
            for actor in (self.alice, bob)
        ]
        event_ids = await gatherResults(sending)
        last = await self.alice.say(self.room_id, "last")

        self.assertEqual(len(set(event_ids)), 24)
        self.assertEqual(len(await self.said()), 25)
        heard = await self.guard.hears(last)
        for event_id in event_ids:
            self.assertTrue(self.is_signed(await self.guard.hears(event_id)))
        self.assertTrue(self.is_signed(heard))

    async def test_a_repeated_request_makes_one_event(self) -> None:
        """A client that lost its response retries, even while the first request is in progress."""
        sending = [
            Deferred.fromCoroutine(self.alice.say(self.room_id, "once", txn_id="same"))
            for _ in range(3)
        ]
        event_ids = await gatherResults(sending)
        await self._pool.closeCachedConnections()
        await self.here.stop()
        await self.here.start()
        self.alice.url = self.here.url
        again = await self.alice.say(self.room_id, "once", txn_id="same")
        event = await self.alice.event(self.room_id, again)

        self.assertEqual({*event_ids, again}, {event_ids[0]})
        self.assertEqual(event["unsigned"]["transaction_id"], "same")

    async def test_all_that_users_do_is_checked(self) -> None:
        """State, joins, names and redactions, and those invites that others have to sign."""
        bob = await self.here.register("bob")
        said = await self.alice.say(self.room_id, "hello")
        self.guard.received.clear()

        await self.alice.set_state(self.room_id, "m.room.topic", {"topic": "tea"})
        await bob.join(self.room_id)
        await self.alice.redact(self.room_id, said)
        await bob.put(f"/profile/{bob.user_id}/displayname", {"displayname": "Bob"})
        await self.until_named(bob, "Bob")

        kinds = [event["type"] for event in self.signing_requests]
        self.assertEqual(
            kinds, ["m.room.topic", "m.room.member", "m.room.redaction", "m.room.member"]
        )
        event = await self.alice.event(self.room_id, said)
        self.assertEqual(event["content"], {})

    async def test_a_user_refused_by_the_policy_server_is_not_invited(self) -> None:
        """Their server gets no request."""
        other = await self.fake()
        self.refuse(lambda event: event["content"].get("membership") == "invite")

        attempt = self.alice.post(f"/rooms/{self.room_id}/invite", {"user_id": other.user("x")})

        await self.assert_refused("M_FORBIDDEN", attempt, 403)
        self.assertEqual(other.received, [])

    async def until_named(self, actor: Actor, name: str) -> None:
        """Wait until a user has a name in the room."""
        since = None
        while True:
            member = await self.alice.state(self.room_id, "m.room.member", actor.user_id)
            if member.get("displayname") == name:
                return
            since = (await self.alice.sync(since, timeout_ms=1_000))["next_batch"]


class ReceivingTests(PolicyServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.other = await self.fake()
        self.trent = self.other.user("trent")
        self.theirs = await self.other.join(self.here.name, self.room_id, self.trent)
        self.guard.received.clear()

    async def test_an_event_without_signature_is_sent_to_the_policy_server(self) -> None:
        """Servers without support for policy servers can take part."""
        event = self.theirs.say(self.trent, "hello")

        await self.other.send(self.here.name, [event])
        answer = await self.alice.say(self.room_id, "I see")

        self.assertEqual(await self.said(), ["I see", "hello"])
        await self.guard.hears(answer)
        kept = await self.event_as_kept(event)
        self.assertTrue(self.is_signed(kept))
        self.assertEqual(set(kept.signatures), {self.guard.name, self.other.name})

    async def test_a_signed_event_is_not_sent_to_the_policy_server(self) -> None:
        """The policy server may be unavailable, and has less to do."""
        event = self.theirs.say(self.trent, "hello")
        signature = KEY.sign(event.signing_bytes())
        signed = event.with_signature(self.guard.name, KEY_ID, signature)

        await self.other.send(self.here.name, [signed])

        self.assertEqual((self.signing_requests, await self.said()), ([], ["hello"]))

    async def test_events_without_recommendation_are_not_shown(self) -> None:
        """Local users get no spam, from whatever server; the room continues after it."""
        self.refuse(lambda event: event["content"].get("body") == "buy")
        event = self.theirs.say(self.trent, "buy")

        status, answer = await self.other.send(self.here.name, [event])
        last = await self.alice.say(self.room_id, "good")
        following = self.theirs.say(self.trent, "sorry")
        await self.other.send(self.here.name, [following])

        self.assertEqual((status, answer), (200, {"pdus": {event.event_id: {}}}))
        self.assertEqual(await self.said(), ["sorry", "good"])
        heard = await self.guard.hears(last)
        self.assertNotIn(event.event_id, heard.prev_event_ids)

    async def test_an_unavailable_policy_server_recommends_nothing(self) -> None:
        """Otherwise an attacker would only have to overload it."""
        self.guard.answers[OPERATION] = always(FAILURE)

        await self.other.send(self.here.name, [self.theirs.say(self.trent, "buy")])

        self.assertEqual(await self.said(), [])

    async def test_a_join_without_recommendation_is_refused(self) -> None:
        """The other server gets an error, and so does its user."""
        self.refuse(lambda event: event["sender"] == self.other.user("bot"))

        try:
            await self.other.join(self.here.name, self.room_id, self.other.user("bot"))
        except AssertionError as refusal:
            self.assertIn("M_FORBIDDEN", str(refusal))
        else:
            self.fail("the bot is in the room")
        members = await self.alice.get(f"/rooms/{self.room_id}/joined_members")
        self.assertNotIn(self.other.user("bot"), members["joined"])

    async def test_events_of_the_policy_server_itself_have_two_signatures(self) -> None:
        """By its own key and by that of the room; the latter is published nowhere."""
        plain = self.room.say(self.mallory, "I watch over you")
        signature = KEY.sign(plain.signing_bytes())
        event = plain.with_signature(self.guard.name, KEY_ID, signature)
        alone = dict(event.pdu)
        alone["signatures"] = {self.guard.name: {KEY_ID: encode_base64(signature)}}

        _, refused = await self.guard.send(self.here.name, [alone])
        self.guard.received.clear()
        await self.guard.send(self.here.name, [event])

        self.assertIn("error", refused["pdus"][event.event_id])
        self.assertEqual(await self.said(), ["I watch over you"])
        self.assertEqual(self.guard.received, [])

    async def event_as_kept(self, event: Event) -> Event:
        """An event as this server gives it to others."""
        path = f"/_matrix/federation/v1/event/{event.event_id}"
        _, answer = await self.guard.ask(self.here.name, "GET", path)
        return Event.from_pdu(event.version, answer["pdus"][0])
