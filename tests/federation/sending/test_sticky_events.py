"""Sticky events between servers: what is sent, and what becomes of what is received.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4354
"""

from itertools import count
from typing import Any

from homeserver.protocol.events import Event
from tests.api.sync.sticky_case import DURATION, HOUR_MS, sticky, timeline
from tests.federation.remote.test_policy_servers import PolicyServerTestCase
from tests.support.actors import CLIENT, Actor
from tests.support.fake_server.fake_http import Received
from tests.support.organisations import FederationTestCase
from tests.support.reactor import pause
from tests.support.room_graph import RoomGraph, now_ms

PATIENCE_SECONDS = 20.0


class StickyFederationTestCase(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self._txn_ids = (f"sticky{number}" for number in count())
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.room = await self.alice.create_room(public=True)

    async def stick(self, by: Actor, duration: int = HOUR_MS) -> str:
        """Send a sticky message; gives its event id."""
        path = f"{CLIENT}/rooms/{self.room}/send/m.rtc.member/{next(self._txn_ids)}"
        sent = await by.request("PUT", path, {"a": 1}, query={DURATION: duration})
        event_id: str = sent["event_id"]
        return event_id

    async def bury(self, by: Actor) -> None:
        """Send so many messages that a timeline does not reach back to what was before."""
        for number in range(12):
            await by.say(self.room, f"{number}")

    async def sticks(self, actor: Actor) -> list[str]:
        """The ids of the sticky events that a client which begins has, in the order of sending."""
        response = await actor.sync(filter='{"room":{"timeline":{"limit":0}}}')
        return sticky(response, self.room)

    async def comes_to_stick(self, actor: Actor, *event_ids: str) -> None:
        """Wait until exactly these events stick for a user."""
        for _ in range(int(PATIENCE_SECONDS / 0.1)):
            found = await self.sticks(actor)
            if sorted(found) == sorted(event_ids):
                return
            await pause(0.1)
        self.fail(f"{found} stick in place of {event_ids}")


class TwoServersTests(StickyFederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.organisation()
        self.bob = await self.there.register("bob")

    async def join(self) -> None:
        await self.bob.join(self.room, via=[self.here.name])

    async def test_it_sticks_on_the_other_server(self) -> None:
        """A member there gets it wherever their timeline begins."""
        await self.join()

        event_ids = [await self.stick(self.alice), await self.stick(self.bob)]
        await self.bury(self.alice)

        for actor in (self.alice, self.bob):
            await self.comes_to_stick(actor, *event_ids)

    async def test_a_server_that_joins_gets_all_that_stick(self) -> None:
        """Whatever the history visibility, and though nobody there asks for the history."""
        await self.alice.set_state(
            self.room, "m.room.history_visibility", {"history_visibility": "joined"}
        )
        event_ids = [await self.stick(self.alice) for _ in range(3)]
        gone = await self.stick(self.alice)
        await self.alice.redact(self.room, gone)
        await self.stick(self.alice, 1)
        await self.bury(self.alice)

        await self.join()

        await self.comes_to_stick(self.bob, *event_ids)
        since = (await self.bob.sync())["next_batch"]
        last = await self.stick(self.alice)
        await self.comes_to_stick(self.bob, *event_ids, last)
        response = await self.bob.sync(since)
        self.assertEqual(timeline(response, self.room), [last])
        self.assertEqual(sticky(response, self.room), [])

    async def test_the_event_before_the_join_sticks(self) -> None:
        """The other server knows by its id alone that there is one."""
        event_id = await self.stick(self.alice)

        await self.join()

        await self.comes_to_stick(self.bob, event_id)

    async def test_a_waiting_client_gets_what_comes_after_the_join(self) -> None:
        """Its sync ends when the other server has sent it."""
        event_id = await self.stick(self.alice)
        await self.bury(self.alice)
        since = (await self.bob.sync())["next_batch"]
        await self.join()

        found: list[str] = []
        while event_id not in found:
            response = await self.bob.sync(since, timeout_ms=10_000)
            since = response["next_batch"]
            found += sticky(response, self.room) + timeline(response, self.room)

        self.assertEqual(found.count(event_id), 1)

    async def test_a_server_that_was_away_gets_all_that_stick(self) -> None:
        """The newest event, which it gets of each room, would not be enough."""
        await self.join()
        await self.comes_to_stick(self.bob)
        await self.there.stop()
        event_ids = [await self.stick(self.alice) for _ in range(60)]
        await self.bury(self.alice)
        await self.here.stop()
        await self.here.start()
        self.alice.url = self.here.url

        await self.there.start()
        self.bob.url = self.there.url
        await self.bob.say(self.room, "I am back")

        await self.comes_to_stick(self.bob, *event_ids)


class ScriptedServerTests(StickyFederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.other = await self.fake()
        self.mallory = self.other.user("mallory")

    async def join(self) -> RoomGraph:
        return await self.other.join(self.here.name, self.room, self.mallory)

    async def send(self, *events: Event) -> tuple[int, Any]:
        return await self.other.send(self.here.name, events)

    async def test_a_received_event_sticks(self) -> None:
        """From when it was received, if its sender's clock is ahead."""
        graph = await self.join()
        ahead = graph.add("m.x", {}, sender=self.mallory, sticky_ms=HOUR_MS, ts=now_ms() + HOUR_MS)
        over = graph.add("m.x", {}, sender=self.mallory, sticky_ms=1_000, ts=now_ms() - 2_000)
        longest = graph.add("m.x", {}, sender=self.mallory, sticky_ms=2**50)

        await self.send(ahead, over, longest)

        self.assertEqual(await self.sticks(self.alice), [ahead.event_id, longest.event_id])
        event = await self.alice.event(self.room, ahead.event_id)
        self.assertLessEqual(event["unsigned"]["msc4354_sticky_duration_ttl_ms"], HOUR_MS)

    async def test_a_malformed_duration_sticks_to_nothing(self) -> None:
        """The event is one like any other."""
        graph = await self.join()
        events = [
            graph.add("m.x", {}, sender=self.mallory, sticky_ms=value)  # type: ignore[arg-type]
            for value in (-1, True, "1000", None, [], {})
        ]

        await self.send(*events)

        self.assertEqual(await self.sticks(self.alice), [])
        for event in events:
            self.assertNotIn("sticky", await self.alice.event(self.room, event.event_id))

    async def test_an_event_that_was_soft_failed_is_accepted_later(self) -> None:
        """When the current state changes, so that all servers agree on what sticks."""
        graph = await self.join()
        before = graph.ends
        await self.alice.kick(self.room, _Named(self.mallory))
        event = graph.build("m.x", {}, sender=self.mallory, after=before, sticky_ms=HOUR_MS)
        message = graph.build("m.x", {"a": 1}, sender=self.mallory, after=before)
        graph.put(event)
        await self.send(event, message)
        kicked = await self.sticks(self.alice)
        await self.here.stop()
        await self.here.start()
        self.alice.url = self.here.url
        since = (await self.alice.sync())["next_batch"]
        still = await self.sticks(self.alice)

        await self.join()

        await self.comes_to_stick(self.alice, event.event_id)
        response = await self.alice.sync(since)
        self.assertEqual([*kicked, *still], [])
        seen = [*timeline(response, self.room), *sticky(response, self.room)]
        self.assertEqual(seen.count(event.event_id), 1)
        self.assertNotIn(message.event_id, seen)

    async def test_only_so_many_are_accepted(self) -> None:
        """The other server sends the rest later."""
        here = await self.organisation(
            rate_limits={"remote_sticky": {"per_second": 0.01, "burst": 2}}
        )
        alice = await here.register("alice")
        room = await alice.create_room(public=True)
        graph = await self.other.join(here.name, room, self.mallory)
        events = [graph.add("m.x", {}, sender=self.mallory, sticky_ms=HOUR_MS) for _ in range(3)]

        first = await self.other.send(here.name, events[:2])
        second = await self.other.send(here.name, events[2:])
        third = await self.other.send(here.name, [graph.say(self.mallory, "hello")])

        self.assertEqual(first[0], 200)
        self.assertEqual((second[0], second[1]["errcode"]), (429, "M_LIMIT_EXCEEDED"))
        self.assertEqual(third[0], 200)

    async def test_a_server_that_joins_is_sent_only_what_is_of_this_server(self) -> None:
        """The rest comes from the servers of its senders; and nothing else of the history."""
        graph = await self.join()
        await self.send(graph.add("m.x", {}, sender=self.mallory, sticky_ms=HOUR_MS))
        said = await self.alice.say(self.room, "before the join")
        event_id = await self.stick(self.alice)
        last = await self.alice.say(self.room, "the last before the join")
        newcomer = await self.fake()

        await newcomer.join(self.here.name, self.room, newcomer.user("bob"))

        def brings(request: Received) -> bool:
            ids = [pdu["type"] for pdu in request.body["pdus"]]
            return "m.rtc.member" in ids

        request = await newcomer.wait_for_request("send_transaction", brings)
        types = [pdu["type"] for pdu in request.body["pdus"]]
        self.assertEqual(types, ["m.rtc.member"])
        self.assertEqual(len({said, event_id, last}), 3)


class _Named:
    """A user of whom only the id is known."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id


class PolicyTests(PolicyServerTestCase):
    async def test_an_event_that_is_not_recommended_does_not_stick(self) -> None:
        """Nor is it accepted later."""
        self.refuse(lambda event: event["type"] == "m.x")
        event = self.room.build("m.x", {}, sender=self.mallory, sticky_ms=HOUR_MS)
        good = self.room.build("m.y", {}, sender=self.mallory, sticky_ms=HOUR_MS)

        await self.guard.send(self.here.name, [event, good])
        await self.alice.kick(self.room_id, _Named(self.mallory))
        await self.guard.join(self.here.name, self.room_id, self.mallory)
        said = await self.alice.say(self.room_id, "the last")

        response = await self.alice.sync(filter='{"room":{"timeline":{"limit":0}}}')
        self.assertEqual(sticky(response, self.room_id), [good.event_id])
        history = [each["event_id"] for each in await self.alice.history(self.room_id)]
        self.assertIn(said, history)
        self.assertNotIn(event.event_id, history)
