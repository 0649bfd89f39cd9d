"""A malicious server against this one: its attacks fail, and other servers are not affected.

Spec: https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from typing import Any
from urllib.parse import quote

from federation.receiving import event_fetcher
from federation.remote import membership_requests
from homeserver.protocol.events import Event
from tests.support.actors import bodies
from tests.support.fake_server.fake_http import NOT_FOUND, Answer, Endless, Received, Stall, always
from tests.support.organisations import FederationTestCase
from tests.support.room_graph import RoomGraph

STATE = "send_join_v2"


class MaliciousServerTestCase(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.evil = await self.fake()
        self.mallory = self.evil.user("mallory")
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")

    async def said(self, room_id: str) -> list[str]:
        """The messages that Alice sees, the newest first."""
        return bodies((await self.alice.messages(room_id, limit=100))["chunk"])

    def requests_for(self, operation: str) -> int:
        """The number of requests of one operation that the other server received."""
        return sum(one.operation == operation for one in self.evil.received)


class TransactionTests(MaliciousServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.room: RoomGraph = self.evil.create_room()
        self.room_id = self.room.room_id
        await self.alice.join(self.room_id, via=[self.evil.name])

    async def test_a_repeated_transaction_has_no_effect(self) -> None:
        """Whatever its new content, the response is the one given before."""
        one, other = self.room.say(self.mallory, "one"), self.room.say(self.mallory, "other")

        first = await self.evil.send(self.here.name, [one], txn_id="same")
        again = await self.evil.send(self.here.name, [other], txn_id="same")

        self.assertEqual(first, (200, {"pdus": {one.event_id: {}}}))
        self.assertEqual((again, await self.said(self.room_id)), (first, ["one"]))

    async def test_a_transaction_of_more_than_the_permitted_number_is_refused(self) -> None:
        """Fifty events and a hundred others, and not one more."""
        event = self.room.say(self.mallory, "hello")
        edu = {"edu_type": "m.typing", "content": {}}

        for pdus, edus in (([event] * 51, []), ([], [edu] * 101)):
            status, answer = await self.evil.send(self.here.name, pdus, edus)
            self.assertEqual((status, answer["errcode"]), (400, "M_BAD_JSON"))
        self.assertEqual(await self.said(self.room_id), [])

    async def test_an_oversized_event_is_dropped_alone(self) -> None:
        """An event has at most 65,536 bytes; this server need not store a larger one."""
        large = self.room.build(
            "m.room.message", {"msgtype": "m.text", "body": "x"}, sender=self.mallory
        )
        pdu = {**large.pdu, "content": {"msgtype": "m.text", "body": "x" * 66_000}}
        good = self.room.say(self.mallory, "good")

        status, answer = await self.evil.send(self.here.name, [pdu, good])

        self.assertEqual((status, answer["pdus"][good.event_id]), (200, {}))
        self.assertEqual(await self.said(self.room_id), ["good"])

    async def test_deeply_nested_json_does_no_harm(self) -> None:
        """It is refused, or stored as it is; the room continues."""
        for depth in (50, 150, 400):
            nested: Any = "bottom"
            for _ in range(depth):
                nested = {"a": nested}
            body = {"msgtype": "m.text", "body": "x", "nested": nested}
            event = self.room.build("m.room.message", body, sender=self.mallory)
            status, _ = await self.evil.send(self.here.name, [event])
            self.assertIn(status, (200, 400))
        good = self.room.say(self.mallory, "good")
        await self.evil.send(self.here.name, [good])

        await self.alice.say(self.room_id, "still here")
        self.assertEqual((await self.said(self.room_id))[:2], ["still here", "good"])

    async def test_invalid_events_are_skipped(self) -> None:
        """They cause no internal error, and do not drop the rest of a transaction."""
        good = self.room.say(self.mallory, "good")
        junk: list[Any] = [
            5,
            None,
            [],
            {},
            {"room_id": 5},
            {"room_id": "nonsense"},
            {"room_id": self.room_id},
            {**good.pdu, "room_id": "!other:remote.example"},
            {**good.pdu, "prev_events": [["a"]], "auth_events": 7},
        ]

        status, answer = await self.evil.send(self.here.name, [*junk, good], [5, {}, []])  # type: ignore[list-item]

        self.assertEqual((status, answer["pdus"][good.event_id]), (200, {}))
        self.assertEqual(await self.said(self.room_id), ["good"])

    async def test_an_endless_auth_chain_is_not_walked(self) -> None:
        """A server that always has one more event gets a bounded number of requests."""
        last = self.room.state_event("m.room.power_levels")
        chain: dict[str, Event] = {}
        for number in range(300):
            last = self.room.build(
                "m.room.power_levels",
                {"users": {}, "ban": number},
                sender=self.mallory,
                state_key="",
                auth_events=[self.room.state_event("m.room.member", self.mallory), last],
            )
            chain[last.event_id] = last
        event = self.room.build(
            "m.room.message",
            {"msgtype": "m.text", "body": "trust me"},
            sender=self.mallory,
            auth_events=[self.room.state_event("m.room.member", self.mallory), last],
        )

        def one(request: Received) -> Answer:
            found = chain.get(request.path["event_id"])
            return NOT_FOUND if found is None else Answer(200, {"pdus": [found.pdu]})

        self.evil.answers["get_event"] = one
        self.evil.answers["get_event_auth"] = always(NOT_FOUND)

        await self.evil.send(self.here.name, [event])

        self.assertLess(self.requests_for("get_event"), 2 * event_fetcher.MAX_SINGLE)
        self.assertEqual(await self.said(self.room_id), [])
        await self.evil.send(self.here.name, [self.room.say(self.mallory, "good")])
        self.assertEqual(await self.said(self.room_id), ["good"])

    async def test_a_response_with_another_event_is_not_accepted(self) -> None:
        """Neither as a previous event nor as an auth event."""
        lost = self.room.build(
            "m.room.message", {"msgtype": "m.text", "body": "lost"}, sender=self.mallory
        )
        self.room.events[lost.event_id] = lost
        after = self.room.build(
            "m.room.message",
            {"msgtype": "m.text", "body": "after"},
            sender=self.mallory,
            after=[lost],
        )
        other = self.room.build(
            "m.room.message", {"msgtype": "m.text", "body": "other"}, sender=self.mallory
        )
        self.evil.answers["get_missing_previous_events"] = always(
            Answer(200, {"events": [other.pdu, other.pdu, "junk", 5, {}]})
        )
        self.evil.answers["get_event"] = always(Answer(200, {"pdus": [other.pdu]}))

        _, answer = await self.evil.send(self.here.name, [after])

        self.assertIn(after.event_id, str(answer))
        self.assertNotIn("after", await self.said(self.room_id))
        self.assertNotIn("lost", await self.said(self.room_id))

    async def test_a_state_that_never_ends_is_not_read_to_its_end(self) -> None:
        """Nor does it keep the room from going on."""
        self.patch(event_fetcher, "MAX_STATE_BYTES", 300_000)
        self.room.withheld.add(self.room.say(self.mallory, "lost").event_id)
        middle = self.room.say(self.mallory, "middle")
        self.evil.answers["get_missing_previous_events"] = always(
            Answer(200, {"events": [middle.pdu]})
        )
        endless = Endless()
        for operation in ("get_room_state", "get_room_state_ids", "get_event_auth"):
            self.evil.answers[operation] = always(endless)
        after = self.room.say(self.mallory, "after")

        await self.evil.send(self.here.name, [after])
        page = await self.alice.messages(self.room_id, limit=100)

        self.assertEqual(bodies(page["chunk"]), [])
        self.assertGreater(self.requests_for("get_room_state_ids"), 0)
        self.assertLess(endless.sent, 20_000_000)
        await self.alice.say(self.room_id, "still here")
        self.assertEqual((await self.said(self.room_id))[0], "still here")


class StrangerTests(MaliciousServerTestCase):
    async def test_a_server_outside_of_a_room_adds_nothing_to_it(self) -> None:
        """Knowing its id and the ids of its events is not enough."""
        room_id = await self.alice.create_room()
        said = await self.alice.say(room_id, "among us")
        create = next(
            event
            for event in await self.alice.get(f"/rooms/{quote(room_id)}/state")
            if event["type"] == "m.room.create"
        )
        own = self.evil.create_room(creator="another")
        before = own.say(self.mallory, "x")
        for event_type, state_key, content in (
            ("m.room.message", None, {"msgtype": "m.text", "body": "intruder"}),
            ("m.room.member", self.mallory, {"membership": "join"}),
            ("m.room.name", "", {"name": "Mine"}),
        ):
            event = own.build(event_type, content, sender=self.mallory, state_key=state_key)
            for prev in ([said], [before.event_id], []):
                pdu = {
                    **event.pdu,
                    "room_id": room_id,
                    "prev_events": prev,
                    "auth_events": [create["event_id"]],
                }
                status, _ = await self.evil.send(self.here.name, [pdu])
                self.assertEqual(status, 200)

        self.assertEqual(await self.said(room_id), ["among us"])
        members = await self.alice.get(f"/rooms/{quote(room_id)}/joined_members")
        self.assertEqual([*members["joined"]], [self.alice.user_id])

    async def test_it_cannot_act_for_users_of_other_servers(self) -> None:
        """Neither for users of this server nor for those of a third."""
        room_id = await self.alice.create_room(public=True)
        room = await self.evil.join(self.here.name, room_id, self.mallory)
        for user_id in (self.alice.user_id, "@bob:third.example"):
            typing = {"room_id": room_id, "user_id": user_id, "typing": True}
            status, _ = await self.evil.send(
                self.here.name, edus=[{"edu_type": "m.typing", "content": typing}]
            )
            self.assertEqual(status, 200)
            stolen = room.build(
                "m.room.message", {"msgtype": "m.text", "body": "stolen"}, sender=user_id
            )
            await self.evil.send(self.here.name, [stolen])

        ephemeral = (await self.alice.sync())["rooms"]["join"][room_id]["ephemeral"]["events"]
        typists = [event["content"] for event in ephemeral if event["type"] == "m.typing"]
        self.assertIn(typists, ([], [{"user_ids": []}]))
        self.assertEqual(await self.said(room_id), [])

    async def test_it_reads_nothing_of_rooms_that_it_is_not_in(self) -> None:
        """Neither events nor states nor history, by any endpoint."""
        room_id = await self.alice.create_room()
        said = await self.alice.say(room_id, "among us")
        room, event = quote(room_id), quote(said, safe="")
        base = "/_matrix/federation/v1"
        for method, path, query in (
            ("GET", f"event/{event}", {}),
            ("GET", f"state/{room}", {"event_id": said}),
            ("GET", f"state_ids/{room}", {"event_id": said}),
            ("GET", f"event_auth/{room}/{event}", {}),
            ("GET", f"backfill/{room}", {"v": said, "limit": 10}),
            ("GET", f"timestamp_to_event/{room}", {"ts": 0, "dir": "f"}),
            ("GET", f"hierarchy/{room}", {}),
            ("POST", f"get_missing_events/{room}", {}),
            ("GET", f"make_join/{room}/{quote(self.mallory)}", {"ver": "12"}),
            ("GET", f"make_knock/{room}/{quote(self.mallory)}", {"ver": "12"}),
        ):
            body = {"latest_events": [said], "earliest_events": []} if method == "POST" else None
            status, answer = await self.evil.ask(
                self.here.name, method, f"{base}/{path}", body, query=query
            )
            self.assertIn(status, (400, 403, 404), path)
            self.assertNotIn("among us", str(answer))


class JoiningTests(MaliciousServerTestCase):
    async def test_an_invalid_state_admits_no_user(self) -> None:
        """The user gets an error, nothing incomplete remains, and a valid response succeeds."""
        room, other = self.evil.create_room(), self.evil.create_room(creator="another")
        good = [event.pdu for event in room.events.values()]
        foreign = [event.pdu for event in other.events.values()]
        version = self.evil.create_room("11")
        strange = [event.pdu for event in version.events.values()]
        for state, chain in (
            ([], []),
            (good[1:], []),
            (foreign, foreign),
            (strange, strange),
            ([*foreign[:1], *good[1:]], []),
            ([5, None, [], {}], [{}]),
        ):
            body = {"state": state, "auth_chain": chain, "origin": self.evil.name}
            self.evil.answers[STATE] = always(Answer(200, body))
            attempt = self.alice.join(room.room_id, via=[self.evil.name])
            await self.assert_refused("M_UNKNOWN", attempt, 502)
            self.assertEqual((await self.alice.get("/joined_rooms"))["joined_rooms"], [])
        del self.evil.answers[STATE]

        await self.alice.join(room.room_id, via=[self.evil.name])

        await self.alice.say(room.room_id, "here")
        self.assertEqual(await self.said(room.room_id), ["here"])

    async def test_waiting_for_a_state_ends(self) -> None:
        """Neither an endless response nor a slow one delays the user permanently."""
        self.patch(membership_requests, "MAX_STATE_BYTES", 300_000)
        self.patch(membership_requests, "STATE_TIMEOUT_SECONDS", 0.5)
        room = self.evil.create_room()
        for answer in (Endless(), Stall(b'{"state": ['), Stall()):
            self.evil.answers[STATE] = always(answer)
            attempt = self.alice.join(room.room_id, via=[self.evil.name])
            await self.assert_refused("M_UNKNOWN", attempt, 502)
        del self.evil.answers[STATE]

        await self.alice.join(room.room_id, via=[self.evil.name])
