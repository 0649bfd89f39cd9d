"""An undecodable element of a list: only that element is dropped, in every list.

Spec: https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1sendtxnid
"""

from typing import Any
from urllib.parse import quote

import msgspec

from homeserver.protocol.events import Event
from tests.protocol.test_json_elements import UNDECODABLE
from tests.support.actors import bodies
from tests.support.fake_server.fake_http import NOT_FOUND, Answer, Received, always
from tests.support.organisations import FederationTestCase
from tests.support.refused import Refused
from tests.support.room_graph import RoomGraph

HELLO = {"msgtype": "m.text", "body": "hello"}
RAW = {name: msgspec.Raw(text) for name, text in UNDECODABLE.items()}


def spoiled(event: Event, text: bytes) -> msgspec.Raw:
    """An event with this text as content."""
    pdu = {**event.pdu, "content": "CONTENT"}
    return msgspec.Raw(msgspec.json.encode(pdu).replace(b'"CONTENT"', text))


class BadElementTestCase(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.evil = await self.fake()
        self.mallory = self.evil.user("mallory")
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")

    async def said(self, room_id: str) -> list[str]:
        """The messages that Alice sees, the newest first."""
        return bodies((await self.alice.messages(room_id, limit=100))["chunk"])


class TransactionTests(BadElementTestCase):
    async def test_a_bad_event_is_refused_alone(self) -> None:
        """With its id, if it can be found; the events before it and after it arrive."""
        for version in ("1", "5", "12"):
            room = self.evil.create_room(version)
            await self.alice.join(room.room_id, via=[self.evil.name])
            for name, text in UNDECODABLE.items():
                before = room.say(self.mallory, f"before {name}")
                bad = room.build("m.room.message", HELLO, sender=self.mallory)
                after = room.say(self.mallory, f"after {name}")

                status, answer = await self.evil.send(
                    self.here.name, [before, spoiled(bad, text), after]
                )

                self.assertEqual(status, 200, (version, name, answer))
                outcomes = answer["pdus"]
                self.assertEqual((outcomes[before.event_id], outcomes[after.event_id]), ({}, {}))
                if "nested" not in name and "integer" not in name:
                    self.assertIn("error", outcomes[bad.event_id], (version, name))
                self.assertEqual(
                    (await self.said(room.room_id))[:2], [f"after {name}", f"before {name}"]
                )

    async def test_no_depth_of_nesting_affects_the_others(self) -> None:
        """Decoders, encoders and the rules each have another bound."""
        room = self.evil.create_room()
        await self.alice.join(room.room_id, via=[self.evil.name])
        for depth in (100, 480, 495, 510, 700, 850, 900, 930, 950, 960, 970, 980, 1_000, 2_000):
            bad = room.build("m.room.message", HELLO, sender=self.mallory)
            text = b'{"a":' * depth + b"1" + b"}" * depth
            good = room.say(self.mallory, f"{depth}")

            status, answer = await self.evil.send(self.here.name, [spoiled(bad, text), good])

            self.assertEqual((status, answer["pdus"].get(good.event_id)), (200, {}), depth)
        await self.alice.sync()
        newest = (await self.alice.messages(room.room_id, limit=1))["chunk"][0]
        self.assertEqual(newest["content"]["body"], "2000")

    async def test_a_bad_edu_is_skipped_alone(self) -> None:
        """Typing in the same transaction is shown."""
        room = self.evil.create_room()
        await self.alice.join(room.room_id, via=[self.evil.name])
        good = {
            "edu_type": "m.typing",
            "content": {"room_id": room.room_id, "user_id": self.mallory, "typing": True},
        }
        receipt = {"m.read": {self.mallory: {"event_ids": ["$a\0b"], "data": {"ts": 1}}}}
        nul = {"edu_type": "m.receipt", "content": {room.room_id: receipt}}

        status, _ = await self.evil.send(self.here.name, [], [*RAW.values(), nul, good])

        self.assertEqual(status, 200)
        joined = (await self.alice.sync())["rooms"]["join"][room.room_id]
        typing = [each for each in joined["ephemeral"]["events"] if each["type"] == "m.typing"]
        self.assertEqual(typing[0]["content"]["user_ids"], [self.mallory])

    async def test_invalid_json_is_refused_as_a_whole(self) -> None:
        """So is invalid UTF-8 anywhere."""
        path = "/_matrix/federation/v1/send/"
        for number, text in enumerate(
            (b'{"pdus":[{nope}]}', b'{"pdus":[],"x":"\xff"}', b'{"pdus":[{"a":"\xff"}]}', b"{")
        ):
            status, answer = await self.evil.ask(self.here.name, "PUT", f"{path}{number}", text)
            self.assertEqual((status, answer["errcode"]), (400, "M_NOT_JSON"), text)

    async def test_an_unsigned_transaction_is_refused(self) -> None:
        """Even where the signed content could not be decoded."""
        room = self.evil.create_room()
        await self.alice.join(room.room_id, via=[self.evil.name])
        other = await self.fake()
        event = room.say(self.mallory, "hello")
        pdus = [msgspec.Raw(event.json), RAW["a lone surrogate"]]
        body = msgspec.json.encode({"pdus": pdus})

        status, _ = await self.evil.ask(
            self.here.name, "PUT", "/_matrix/federation/v1/send/1", body, key=other.key
        )

        self.assertEqual((status, await self.said(room.room_id)), (400, []))


class NulTests(FederationTestCase):
    """A NUL is a character like any other in events, although the database has no place for it."""

    async def test_what_a_client_may_send_a_server_may_receive(self) -> None:
        """Two local servers stay connected, whatever their users send."""
        one, other = await self.organisation(), await self.organisation()
        alice, bob = await one.register("alice"), await other.register("bob")
        room_id = await alice.create_room(public=True)
        await bob.join(room_id, via=[one.name])

        await alice.set_state(room_id, "m.room.name", {"name": "a\0b"})
        await alice.set_state(room_id, "m.room.topic", {"topic": "a\0b"})
        said = await alice.say(room_id, "a\0b")
        await alice.send(
            room_id,
            "m.reaction",
            {"m.relates_to": {"rel_type": "m.annotation", "event_id": said, "key": "a\0b"}},
        )
        await alice.send(
            room_id,
            "m.room.message",
            {**HELLO, "m.relates_to": {"rel_type": "a\0b", "event_id": said}},
        )
        await alice.put(
            f"/rooms/{quote(room_id)}/state/m.room.member/{quote(alice.user_id)}",
            {"membership": "join", "displayname": "a\0b", "avatar_url": "a\0b"},
        )
        last = await alice.say(room_id, "the last\0")

        chunk: list[Any] = []
        while last not in [each["event_id"] for each in chunk]:
            chunk = (await bob.messages(room_id, limit=100))["chunk"]
        self.assertIn("a\0b", bodies(chunk))
        state = await bob.full_state(room_id)
        self.assertEqual(state["m.room.name", ""]["content"]["name"], "a\0b")
        for user in (alice, bob):
            path = f"/rooms/{quote(room_id)}"
            await user.get(f"{path}/joined_members")
            await user.get(f"{path}/event/{quote(said)}")
            await user.get(f"{path}/context/{quote(said)}")
            await user.request("GET", f"/_matrix/client/v1{path}/relations/{quote(said)}")
            await user.sync()

    async def test_events_that_others_could_not_receive_are_refused(self) -> None:
        """At the client, in rooms of all versions; content just within the bounds arrives."""
        one, other = await self.organisation(), await self.organisation()
        alice, bob = await one.register("alice"), await other.register("bob")
        for version in ("1", "12"):
            room_id = await alice.create_room(public=True, room_version=version)
            await bob.join(room_id, via=[one.name])
            path = f"/rooms/{quote(room_id)}/send/m.room.message/"
            bad = {
                **UNDECODABLE,
                "nested": b'{"a":' * 505 + b"1" + b"}" * 505,
                "a large integer": b'{"n":9223372036854775808}',
            }
            for number, text in enumerate(bad.values()):
                with self.assertRaises(Refused) as refused:
                    await alice.put(f"{path}bad{number}", text)
                self.assertEqual(refused.exception.status, 400)
                self.assertIn(refused.exception.errcode, ("M_BAD_JSON", "M_NOT_JSON"))
            deep: Any = 1
            for _ in range(490):
                deep = {"a": deep}
            sent = await alice.send(room_id, "org.example.deep", deep)
            last = await alice.say(room_id, "last")

            chunk: list[Any] = []
            while last not in [each["event_id"] for each in chunk]:
                chunk = (await bob.messages(room_id, limit=10))["chunk"]
            found = {each["event_id"]: each["content"] for each in chunk}
            self.assertEqual(found[sent], deep)
            await bob.sync()

    async def test_the_same_holds_for_invites(self) -> None:
        """For its reason and its stripped state."""
        one, other = await self.organisation(), await self.organisation()
        alice, bob = await one.register("alice"), await other.register("bob")
        room_id = await alice.create_room()
        await alice.set_state(room_id, "m.room.name", {"name": "a\0b"})

        await alice.put(
            f"/rooms/{quote(room_id)}/state/m.room.member/{quote(bob.user_id)}",
            {"membership": "invite", "reason": "a\0b"},
        )

        invite = (await bob.sync())["rooms"]["invite"][room_id]["invite_state"]["events"]
        self.assertIn("a\0b", [each["content"].get("name") for each in invite])
        await bob.join(room_id)


class ResponseTests(BadElementTestCase):
    """Lists in responses of other servers."""

    def spoil(self, operation: str, *members: str) -> None:
        """Put what no decoder takes between the elements of lists that are answered."""
        good: Any = getattr(self.evil._good, operation)

        def answer(request: Received) -> Answer:
            body = msgspec.json.decode(good(request).body)
            for member in members:
                body[member] = [*RAW.values(), *body[member], *RAW.values(), "x", 5, None]
            return Answer(200, body)

        self.evil.answers[operation] = answer

    async def test_a_room_is_joined_whatever_else_is_in_its_state(self) -> None:
        """One undecodable member event prevents no join."""
        for version in ("1", "12"):
            room = self.evil.create_room(version)
            self.spoil("send_join_v2", "state", "auth_chain")

            await self.alice.join(room.room_id, via=[self.evil.name])

            await self.evil.send(self.here.name, [room.say(self.mallory, "welcome")])
            self.assertEqual(await self.said(room.room_id), ["welcome"])

    async def test_the_members_of_a_room_are_had(self) -> None:
        """Those that can be read."""
        self.evil.omits_members = True
        room = self.evil.create_room()
        room.crowd(120)
        self.spoil("get_room_state_ids", "pdu_ids", "auth_chain_ids")
        self.spoil("get_room_state", "pdus", "auth_chain")

        await self.alice.join(room.room_id, via=[self.evil.name])

        members = await self.alice.get(f"/rooms/{quote(room.room_id)}/joined_members")
        self.assertEqual(len(members["joined"]), 122)

    async def test_history_is_fetched(self) -> None:
        """Missed events, and those before the join."""
        room = self.evil.create_room()
        for number in range(3):
            room.say(self.mallory, f"old {number}")
        for operation in ("backfill_room", "get_event"):
            self.spoil(operation, "pdus")
        self.spoil("get_missing_previous_events", "events")
        self.spoil("get_event_auth", "auth_chain")
        await self.alice.join(room.room_id, via=[self.evil.name])
        room.say(self.mallory, "missed")

        await self.evil.send(self.here.name, [room.say(self.mallory, "last")])

        self.assertEqual(
            await self.said(room.room_id), ["last", "missed", "old 2", "old 1", "old 0"]
        )

    async def test_stripped_state_is_shown(self) -> None:
        """Of an invite and of a knock."""
        room: RoomGraph = self.evil.create_room(join_rule="knock")
        self.spoil("send_knock", "knock_room_state")
        await self.alice.knock(room.room_id, via=[self.evil.name])
        knock = (await self.alice.sync())["rooms"]["knock"][room.room_id]
        told = {each["type"] for each in knock["knock_state"]["events"]}
        self.assertLessEqual({"m.room.create", "m.room.join_rules"}, told)

        event = room.build(
            "m.room.member",
            {"membership": "invite"},
            sender=self.mallory,
            state_key=self.alice.user_id,
        )
        stripped = [room.state_event(name).pdu for name in ("m.room.create", "m.room.join_rules")]
        body = {
            "event": event.pdu,
            "room_version": "12",
            "invite_room_state": [*RAW.values(), *stripped, 5],
        }
        path = f"/_matrix/federation/v2/invite/{quote(room.room_id)}/{quote(event.event_id)}"
        status, answer = await self.evil.ask(self.here.name, "PUT", path, body)
        self.assertEqual(status, 200, answer)
        invite = (await self.alice.sync())["rooms"]["invite"][room.room_id]["invite_state"]
        self.assertLessEqual(
            {"m.room.create", "m.room.join_rules"}, {each["type"] for each in invite["events"]}
        )

    async def test_a_directory_is_shown(self) -> None:
        """The rooms in it that can be read."""
        entry = {
            "room_id": "!room:there.example",
            "num_joined_members": 5,
            "world_readable": False,
            "guest_can_join": False,
        }
        self.evil.answers["get_public_rooms"] = always(
            Answer(200, {"chunk": [*RAW.values(), entry, 5]})
        )

        page = await self.alice.get("/publicRooms", server=self.evil.name)

        self.assertEqual([each["room_id"] for each in page["chunk"]], ["!room:there.example"])

    async def test_a_response_of_invalid_elements_only_is_a_failure(self) -> None:
        """The server gets no endless requests."""
        room = self.evil.create_room()
        self.evil.answers["get_event"] = always(NOT_FOUND)
        self.evil.answers["send_join_v2"] = always(Answer(200, {"state": [*RAW.values()]}))

        attempt = self.alice.join(room.room_id, via=[self.evil.name])

        await self.assert_refused("M_UNKNOWN", attempt, 502)
