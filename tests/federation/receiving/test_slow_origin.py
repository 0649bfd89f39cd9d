"""A server that does not send missing events: it delays its own events, and no others.

Spec: https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred

from federation.receiving import pdu_queue
from homeserver.protocol.events import Event
from tests.support.actors import bodies
from tests.support.fake_server.fake_http import NOT_FOUND, Answer, Late, Stall, always
from tests.support.fake_server.server import FakeServer
from tests.support.organisations import FederationTestCase
from tests.support.room_graph import RoomGraph

QUESTIONS = (
    "get_missing_previous_events",
    "get_room_state_ids",
    "get_room_state",
    "get_event",
    "get_event_auth",
)


class SlowOriginTests(FederationTestCase):
    timeout = 120

    async def setUp(self) -> None:
        await super().setUp()
        self.slow, self.quick = await self.fake(), await self.fake()
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.room_id = await self.alice.create_room(public=True)
        self.mallory, self.trent = self.slow.user("mallory"), self.quick.user("trent")
        self.slow_room = await self.slow.join(self.here.name, self.room_id, self.mallory)
        self.quick_room = await self.quick.join(self.here.name, self.room_id, self.trent)

    async def said(self) -> list[str]:
        """The messages that Alice sees, the newest first."""
        return bodies((await self.alice.messages(self.room_id, limit=100))["chunk"])

    def lost(self, room: RoomGraph, sender: str) -> Event:
        """An event after one that this server never gets."""
        room.withheld.add(room.say(sender, "lost").event_id)
        return room.say(sender, "after what is lost")

    def requests_for(self, server: FakeServer, operation: str) -> int:
        """The number of requests of one operation that a server received."""
        return sum(one.operation == operation for one in server.received)

    async def begin(self, server: FakeServer, *events: Event) -> "Deferred[tuple[int, object]]":
        """Send events whose response waits until this server requests something."""
        sending = Deferred.fromCoroutine(server.send(self.here.name, events))
        await server.wait_for_request("get_missing_previous_events")
        return sending

    async def test_other_servers_are_not_delayed(self) -> None:
        """A message of another server in the same room arrives in a moment."""
        for question in QUESTIONS:
            self.slow.answers[question] = always(Stall())
        self.patch(pdu_queue, "FETCH_SECONDS", 6.0)
        sending = await self.begin(self.slow, self.lost(self.slow_room, self.mallory))

        for number in range(3):
            event = self.quick_room.say(self.trent, f"{number}")
            began = monotonic()
            status, answer = await self.quick.send(self.here.name, [event])
            self.assertLess(monotonic() - began, 1.0)
            self.assertEqual((status, answer), (200, {"pdus": {event.event_id: {}}}))

        self.assertFalse(sending.called)
        self.assertEqual(await self.said(), ["2", "1", "0"])
        await sending

    async def test_its_own_time_is_bounded(self) -> None:
        """All that its events of one transaction need together, and then they are refused."""
        for question in QUESTIONS:
            self.slow.answers[question] = always(Stall())
        self.patch(pdu_queue, "FETCH_SECONDS", 1.0)
        events = [self.lost(self.slow_room, self.mallory) for _ in range(5)]
        began = monotonic()

        status, answer = await self.slow.send(self.here.name, events)

        self.assertLess(monotonic() - began, 5.0)
        self.assertEqual(status, 200)
        for event in events:
            self.assertIn("error", answer["pdus"][event.event_id])

    async def test_missing_events_are_requested_once(self) -> None:
        """One request for all events of a transaction, and they arrive in their order."""
        self.slow_room.say(self.mallory, "missed")
        events = [self.slow_room.say(self.mallory, f"{number}") for number in range(20)]

        status, answer = await self.slow.send(self.here.name, events)

        self.assertEqual((status, [*answer["pdus"].values()]), (200, [{}] * 20))
        expected = [*(f"{number}" for number in reversed(range(20))), "missed"]
        self.assertEqual(await self.said(), expected)
        self.assertEqual(self.requests_for(self.slow, "get_missing_previous_events"), 1)

    async def test_later_events_are_shown_later(self) -> None:
        """Also those that miss nothing themselves."""
        fork = self.slow_room.ends
        missed = self.slow_room.say(self.mallory, "missed")
        first = self.slow_room.say(self.mallory, "first", after=[missed])
        second = self.slow_room.say(self.mallory, "second", after=fork)

        await self.slow.send(self.here.name, [first, second])

        timeline = (await self.alice.sync())["rooms"]["join"][self.room_id]["timeline"]
        self.assertEqual(bodies(timeline["events"]), ["missed", "first", "second"])

    async def test_branches_of_a_transaction_share_a_request(self) -> None:
        """Each begins after a missing event."""
        fork = self.slow_room.ends
        branches = []
        for number in range(4):
            missed = self.slow_room.say(self.mallory, f"missed {number}", after=fork)
            branches.append(self.slow_room.say(self.mallory, f"{number}", after=[missed]))

        status, answer = await self.slow.send(self.here.name, branches)

        self.assertEqual((status, [*answer["pdus"].values()]), (200, [{}] * 4))
        expected = {f"{number}" for number in range(4)} | {f"missed {n}" for n in range(4)}
        self.assertEqual({*await self.said()}, expected)
        self.assertEqual(self.requests_for(self.slow, "get_missing_previous_events"), 1)

    async def test_later_events_of_the_server_wait(self) -> None:
        """The events of one server stay in their order, and are processed in the end."""
        good: Any = self.slow._good.get_missing_previous_events
        self.slow.answers["get_missing_previous_events"] = lambda request: Late(good(request))
        self.slow_room.say(self.mallory, "missed")
        sending = await self.begin(self.slow, self.slow_room.say(self.mallory, "first"))
        second = self.slow_room.say(self.mallory, "second")

        status, answer = await self.slow.send(self.here.name, [second])
        await sending

        self.assertEqual((status, answer["pdus"][second.event_id]), (200, {}))
        self.assertEqual(await self.said(), ["second", "first", "missed"])
        self.assertEqual(self.requests_for(self.slow, "get_missing_previous_events"), 1)

    async def test_a_server_that_withholds_auth_events_is_asked_for_the_state(self) -> None:
        """Other implementations refuse `event_auth` after a gap, and know the state."""
        for number in range(8):
            self.slow_room.add(
                "m.room.member",
                {"membership": "join", "displayname": f"{number}"},
                sender=self.mallory,
                state_key=self.mallory,
            )
        gap = self.slow_room.say(self.mallory, "gap")
        last = self.slow_room.say(self.mallory, "last")
        self.slow.answers["get_event_auth"] = always(NOT_FOUND)
        self.slow.answers["get_missing_previous_events"] = always(
            Answer(200, {"events": [gap.pdu]})
        )

        status, answer = await self.slow.send(self.here.name, [last])

        self.assertEqual((status, answer["pdus"][last.event_id]), (200, {}))
        self.assertEqual((await self.said())[:2], ["last", "gap"])
