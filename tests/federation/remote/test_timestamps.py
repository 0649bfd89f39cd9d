"""Jumping to a date in a room whose history is on other servers.

Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid
"""

from typing import Any
from urllib.parse import quote

from homeserver.protocol.events import Event
from tests.support.actors import CLIENT, Actor, bodies
from tests.support.fake_server.fake_http import FAILURE, GARBAGE, NOT_FOUND, Answer, always
from tests.support.organisations import FederationTestCase
from tests.support.room_graph import now_ms

JUMP = CLIENT.replace("v3", "v1") + "/rooms/{}/timestamp_to_event"
ASKED = "/_matrix/federation/v1/timestamp_to_event/"
HOUR = 3_600_000  # ms


async def closest(actor: Actor, room: str, timestamp: int, direction: str) -> Any:
    """The response to a client."""
    query = {"ts": timestamp, "dir": direction}
    return await actor.request("GET", JUMP.format(quote(room)), query=query)


def stamp(event: Event) -> dict[str, Any]:
    """The form in which the response names an event."""
    return {"event_id": event.event_id, "origin_server_ts": event.origin_server_ts}


class MissingHistoryTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.fake()
        self.here = await self.organisation()
        self.bob = await self.here.register("bob")
        self.mallory = self.there.user("mallory")
        self.room = self.there.create_room()
        start = now_ms() - 1_000 * HOUR
        self.said = [
            self.room.say(self.mallory, str(number), ts=start + number * HOUR)
            for number in range(300)
        ]
        self.room_id = self.room.room_id
        await self.bob.join(self.room_id, via=[self.there.name])

    async def test_a_newcomer_jumps_to_a_day_before_their_server_came(self) -> None:
        """Without scrolling there; and they read on from that day in both directions."""
        wanted = self.said[120]
        timestamp = wanted.origin_server_ts

        found = await closest(self.bob, self.room_id, timestamp - 1, "f")
        same = await closest(self.bob, self.room_id, timestamp + 1, "b")
        path = f"/rooms/{self.room_id}/context/{quote(wanted.event_id, safe='')}"
        around = await self.bob.get(path, limit=40)
        forth = await self.bob.messages(self.room_id, "f", since=around["end"], limit=20)
        back = await self.bob.messages(self.room_id, "b", since=around["start"], limit=20)

        self.assertEqual((found, same), (stamp(wanted), stamp(wanted)))
        self.assertEqual(around["event"]["event_id"], wanted.event_id)
        read = [*back["chunk"][::-1], *around["events_before"][::-1], around["event"]]
        read += [*around["events_after"], *forth["chunk"]]
        self.assertEqual(bodies(read), [str(number) for number in range(80, 161)])

    async def test_local_history_needs_no_request(self) -> None:
        """Where no history is missing around a time, the user waits for no other server."""
        own = await self.bob.say(self.room_id, "here")
        event = await self.bob.event(self.room_id, own)

        found = await closest(self.bob, self.room_id, event["origin_server_ts"], "f")

        self.assertEqual(found["event_id"], own)
        self.assertEqual(self.request_count(), 0)

    async def test_what_was_fetched_is_not_fetched_again(self) -> None:
        """The next user who jumps to that day gets it at once."""
        wanted = self.said[120]
        await closest(self.bob, self.room_id, wanted.origin_server_ts, "f")
        fetched = len([one for one in self.there.received if one.operation == "get_event"])

        again = await closest(self.bob, self.room_id, wanted.origin_server_ts, "f")

        now = len([one for one in self.there.received if one.operation == "get_event"])
        self.assertEqual((again, now), (stamp(wanted), fetched))

    async def test_servers_that_fail_or_lie_do_no_harm(self) -> None:
        """The user gets the local result; only events of the room are accepted."""
        timestamp = self.said[120].origin_server_ts
        other = self.there.create_room().say(self.mallory, "in another room", ts=timestamp)
        await self.bob.say(self.room_id, "here")
        known = await closest(self.bob, self.room_id, timestamp, "f")
        self.assertEqual(known, stamp(self.said[120]))
        timestamp = self.said[200].origin_server_ts
        lies = {**stamp(self.said[3]), "origin_server_ts": timestamp}

        for answer in (
            NOT_FOUND,
            GARBAGE,
            FAILURE,
            Answer(200, stamp(other)),
            Answer(200, lies),
            Answer(200, {"event_id": "$unknown", "origin_server_ts": timestamp}),
            Answer(200, {"event_id": "$" + "x" * 300, "origin_server_ts": timestamp}),
        ):
            self.there.answers["get_event_by_timestamp"] = always(answer)
            found = await closest(self.bob, self.room_id, timestamp, "b")
            self.assertEqual(found, stamp(self.said[120]))

    async def test_a_stranger_causes_no_request(self) -> None:
        """A user who may not read the room cannot make this server query others about it."""
        stranger = await self.here.register("stranger")
        timestamp = self.said[120].origin_server_ts

        attempt = closest(stranger, self.room_id, timestamp, "f")

        await self.assert_refused("M_FORBIDDEN", attempt, 403)
        self.assertEqual(self.request_count(), 0)

    def request_count(self) -> int:
        """The number of queries by time that the other server received."""
        return sum(one.operation == "get_event_by_timestamp" for one in self.there.received)


class AskingServerTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.fake()
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.room_id = await self.alice.create_room(public=True)
        self.said = await self.alice.say(self.room_id, "before")

    async def test_a_server_in_the_room_gets_the_closest_event(self) -> None:
        """Its users jump to a day that only this server has."""
        await self.there.join(self.here.name, self.room_id, self.there.user("mallory"))
        timestamp = (await self.alice.event(self.room_id, self.said))["origin_server_ts"]

        for direction in ("f", "b"):
            status, answer = await self.ask(timestamp, direction)
            mine = await closest(self.alice, self.room_id, timestamp, direction)
            self.assertEqual((status, answer), (200, mine))
        status, answer = await self.ask(0, "b")
        self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"))

    async def test_a_server_gets_no_event_that_it_may_not_see(self) -> None:
        """It would be an event without content, useless to its users."""
        hidden = {"history_visibility": "joined"}
        await self.alice.set_state(self.room_id, "m.room.history_visibility", hidden)
        secret = await self.alice.say(self.room_id, "among us")
        await self.there.join(self.here.name, self.room_id, self.there.user("mallory"))
        timestamp = (await self.alice.event(self.room_id, secret))["origin_server_ts"]

        status, answer = await self.ask(timestamp, "f")

        self.assertEqual(status, 200)
        self.assertNotEqual(answer["event_id"], secret)

    async def test_only_servers_in_the_room_may_ask(self) -> None:
        """Other servers, and excluded ones, do not learn when messages were sent."""
        status, answer = await self.ask(0, "f")
        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))
        status, answer = await self.ask(0, "f", room="!unknown:remote.example")
        self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"))
        await self.there.join(self.here.name, self.room_id, self.there.user("mallory"))
        rules = {"allow": ["*"], "deny": [], "allow_ip_literals": False}
        await self.alice.set_state(self.room_id, "m.room.server_acl", rules)

        status, answer = await self.ask(0, "f")

        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))

    async def test_nonsense_is_refused(self) -> None:
        """A wrong question gets a clear answer."""
        await self.there.join(self.here.name, self.room_id, self.there.user("mallory"))

        for timestamp, direction in (("now", "f"), (0, "x")):
            status, answer = await self.ask(timestamp, direction)
            self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))

    async def ask(self, timestamp: Any, direction: str, room: str | None = None) -> tuple[int, Any]:
        """The response to the other server."""
        query = {"ts": timestamp, "dir": direction}
        path = ASKED + quote(room or self.room_id)
        return await self.there.ask(self.here.name, "GET", path, query=query)
