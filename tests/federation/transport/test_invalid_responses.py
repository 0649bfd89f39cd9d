"""Invalid responses of other servers: the next server is asked, and nothing blocks.

Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from time import monotonic
from typing import Any
from urllib.parse import quote

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import globalLogPublisher

from federation.remote import staggered_requests
from tests.support.fake_server.fake_http import Answer, Received, always
from tests.support.organisations import FederationTestCase
from tests.support.refused import Refused
from tests.support.room_graph import RoomGraph

BAD_UTF8 = (
    b'{"event":{"content":{"membership":"\xff"}},"state":[{"a":"\xff"}],"displayname":"\xff"}'
)
JUNK: list[Any] = [None, 5, "x", True, [], {}, [[]], [{}], [5], {"a": []}, 2**70, -1, 1e300]


class GarbageTestCase(FederationTestCase):
    timeout = 240

    async def setUp(self) -> None:
        await super().setUp()
        self.patch(staggered_requests, "STAGGER_SECONDS", 0.1)
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.evil = await self.fake()


class NextServerTests(GarbageTestCase):
    """An invalid response of one server in `via` is that server's failure only."""

    async def setUp(self) -> None:
        await super().setUp()
        self.good = await self.fake()
        self.numbers = iter(range(10_000))

    async def joins_through_good_server(self, step: str, answer: Answer, version: str) -> None:
        """A user joins a room through the good server, which is asked after the bad one."""
        user = await self.here.register(f"user{next(self.numbers)}")
        room = self.good.create_room(version)
        if step != "make_join":
            self.evil.rooms[room.room_id] = room
        self.evil.answers[step] = always(answer)
        try:
            await user.join(room.room_id, via=[self.evil.name, self.good.name])
        finally:
            del self.evil.answers[step]
        said = await user.say(room.room_id, "I am in")
        await self.good.hears(said)

    async def test_a_malformed_template(self) -> None:
        """Any part of it is malformed, in the oldest room version and the newest."""
        for version in ("1", "12"):
            good: dict[str, Any] = {
                "type": "m.room.member",
                "content": {"membership": "join"},
                "prev_events": [],
                "auth_events": [],
                "depth": 5,
            }
            bad = [{**good, member: junk} for member in good for junk in JUNK]
            bad += [{**good, "prev_events": ["$x"] * 1_000}, {}, [], None]
            answers = [Answer(200, {"event": each, "room_version": version}) for each in bad]
            answers += [Answer(200, {"event": good, "room_version": junk}) for junk in JUNK]
            answers += [Answer(200, BAD_UTF8), Answer(200, b"[" * 5_000), Answer(200, b"")]
            for answer in answers[::7] if version == "1" else answers[::2]:
                await self.joins_through_good_server("make_join", answer, version)

    async def test_a_malformed_state(self) -> None:
        """Or one in which the user may not be."""
        other = self.good.create_room(join_rule="invite")
        closed = [event.pdu for event in other.events.values()]
        bad: list[Any] = [{member: junk} for member in ("state", "event") for junk in JUNK]
        bad += [{"state": closed, "auth_chain": closed}, [200], [[]]]
        answers = [Answer(200, each) for each in bad] + [Answer(200, BAD_UTF8)]
        for answer in answers[::3]:
            await self.joins_through_good_server("send_join_v2", answer, "12")

    async def test_without_another_server_the_user_gets_an_error(self) -> None:
        """With the status of a gateway: the request was valid."""
        room = self.evil.create_room()
        self.evil.answers["make_join"] = always(Answer(200, {"event": {"content": []}}))

        attempt = self.alice.join(room.room_id, via=[self.evil.name])

        await self.assert_refused("M_UNKNOWN", attempt, 502)


class EveryCallerTests(GarbageTestCase):
    """No response to any request causes an internal error."""

    async def test_no_response_breaks_its_caller(self) -> None:
        """Clients get an error of the specification, and the log no traceback."""
        room = self.evil.create_room(join_rule="knock")
        room_id, evil, path = quote(room.room_id), self.evil.name, "/_matrix/client/v1/rooms"
        own = await self.alice.create_room()
        await self.alice.join(self.evil.create_room().room_id, via=[evil])
        joined = next(iter((await self.alice.sync())["rooms"]["join"]))
        asked: dict[str, tuple[str, str, Any]] = {
            "query_profile": ("GET", f"/_matrix/client/v3/profile/@x:{evil}", None),
            "query_room_directory": ("GET", f"/_matrix/client/v3/directory/room/%23x:{evil}", None),
            "get_public_rooms": ("GET", f"/_matrix/client/v3/publicRooms?server={evil}", None),
            "get_space_hierarchy": ("GET", f"{path}/{room_id}/hierarchy", None),
            "make_knock": ("POST", f"/_matrix/client/v3/knock/{room_id}?via={evil}", {}),
            "send_knock": ("POST", f"/_matrix/client/v3/knock/{room_id}?via={evil}", {}),
            "send_invite_v2": (
                "POST",
                f"/_matrix/client/v3/rooms/{quote(own)}/invite",
                {"user_id": f"@x:{evil}"},
            ),
            "get_event_by_timestamp": (
                "GET",
                f"{path}/{quote(joined)}/timestamp_to_event?ts=0&dir=f",
                None,
            ),
            "backfill_room": (
                "GET",
                f"/_matrix/client/v3/rooms/{quote(joined)}/messages?dir=b",
                None,
            ),
        }
        for operation, (method, url, body) in asked.items():
            members = MEMBERS[operation]
            bad: list[Any] = [{member: junk} for member in members for junk in JUNK]
            bad += [{members[0]: [junk]} for junk in JUNK]
            answers = [Answer(200, each) for each in [*bad, *JUNK]]
            for answer in [*answers, Answer(200, BAD_UTF8), Answer(200, b"{")]:
                self.evil.answers[operation] = always(answer)
                try:
                    await self.alice.request(method, url, body)
                except Refused as refused:
                    self.assertIn(refused.status, (400, 403, 404, 502), (operation, answer.body))
            del self.evil.answers[operation]

    async def test_a_returned_invite_that_is_no_event_is_bad_json(self) -> None:
        """The errcode that other servers use for it."""
        room_id = await self.alice.create_room()

        def fractions(request: Received) -> Answer:
            content = {"membership": "invite", "fraction": 1.5}
            return Answer(200, {"event": {**request.body["event"], "content": content}})

        self.evil.answers["send_invite_v2"] = fractions
        path = f"/_matrix/client/v3/rooms/{quote(room_id)}/invite"
        body = {"user_id": f"@x:{self.evil.name}"}
        await self.assert_refused("M_BAD_JSON", self.alice.request("POST", path, body), 400)

    async def test_an_invite_comes_back_unchanged_or_fails(self) -> None:
        """A changed invite lacks a valid signature of this server, and breaks the room."""
        changes: dict[str, dict[str, Any]] = {
            "1": {"depth": 3, "prev_events": [], "origin_server_ts": 5, "signatures": {}},
            "12": {"more": "than was sent", "signatures": {}},
        }
        for version, changed in changes.items():
            room_id = await self.alice.create_room(room_version=version)
            path = f"/_matrix/client/v3/rooms/{quote(room_id)}/invite"
            body = {"user_id": f"@x:{self.evil.name}"}
            for change in changed.items():
                self.evil.answers["send_invite_v2"] = lambda request, change=change: Answer(
                    200, {"event": {**request.body["event"], **dict([change])}}
                )
                with self.subTest(version=version, change=change):
                    attempt = self.alice.request("POST", path, body)
                    await self.assert_refused("M_UNKNOWN", attempt, 502)

    async def test_invalid_responses_about_received_events(self) -> None:
        """The events are refused alone, or enter after a gap."""
        room = self.evil.create_room()
        mallory = self.evil.user("mallory")
        await self.alice.join(room.room_id, via=[self.evil.name])
        operations = {
            "get_missing_previous_events": "events",
            "get_room_state_ids": "pdu_ids",
            "get_event": "pdus",
            "get_event_auth": "auth_chain",
        }
        for operation, member in operations.items():
            for junk in JUNK:
                for body in ({member: junk}, {member: [junk]}, junk):
                    self.evil.answers[operation] = always(Answer(200, body))
                room.withheld.add(room.say(mallory, "lost").event_id)
                status, _ = await self.evil.send(self.here.name, [room.say(mallory, "next")])
                self.assertEqual(status, 200)
            self.evil.answers.clear()


MEMBERS = {
    "query_profile": ["displayname", "avatar_url"],
    "query_room_directory": ["room_id", "servers"],
    "get_public_rooms": ["chunk", "next_batch", "total_room_count_estimate"],
    "get_space_hierarchy": ["room", "children", "inaccessible_children"],
    "make_knock": ["event", "room_version"],
    "send_knock": ["knock_room_state"],
    "send_invite_v2": ["event"],
    "get_event_by_timestamp": ["event_id", "origin_server_ts"],
    "backfill_room": ["pdus"],
}


class FloodTests(GarbageTestCase):
    """Megabytes of invalid events."""

    async def setUp(self) -> None:
        await super().setUp()
        self.room = self.evil.create_room()
        self.lines = 0
        self.longest = 0.0
        self._ticked = monotonic()
        globalLogPublisher.addObserver(self._logged)
        self.addCleanup(globalLogPublisher.removeObserver, self._logged)
        ticking = LoopingCall(self._tick)
        ticking.start(0.005)
        self.addCleanup(ticking.stop)

    def _logged(self, event: Any) -> None:
        self.lines += str(event.get("log_namespace", "")).startswith("federation")

    def _tick(self) -> None:
        now = monotonic()
        self.longest = max(self.longest, now - self._ticked)
        self._ticked = now

    def flood(self, *elements: bytes) -> Answer:
        """Many elements beside a good state."""
        good = [event.json for event in self.room.events.values()]
        state = b"[" + b",".join([*elements, *good]) + b"]"
        return Answer(200, b'{"state":' + state + b',"auth_chain":' + state + b"}")

    async def join(self) -> None:
        self.longest, self.lines, self._ticked = 0.0, 0, monotonic()
        await self.alice.join(self.room.room_id, via=[self.evil.name])

    async def test_it_is_skipped_in_slices_and_logged_once(self) -> None:
        """Other requests are served, the log stays short, and the user joins."""
        numbers = [b"%d" % number for number in range(200_000)]
        for elements in ([b"0"] * 200_000, numbers):
            self.room = self.evil.create_room()
            self.evil.answers["send_join_v2"] = always(self.flood(*elements))
            began = monotonic()
            await self.join()
            self.assertLess(monotonic() - began, 20)
            self.assertLess(self.longest, 0.3)
            self.assertLess(self.lines, 30)

    async def test_more_than_any_room_has_is_invalid(self) -> None:
        """No event is built from it."""
        self.evil.answers["send_join_v2"] = always(self.flood(*[b"0"] * 600_000))
        await self.assert_refused("M_UNKNOWN", self.join(), 502)
        self.assertLess(self.longest, 0.3)

    async def test_shutdown_does_not_wait_for_it(self) -> None:
        """A server that is response to stop does so, whatever it is busy with."""
        asked: Deferred[None] = Deferred()
        answer = self.flood(*[b'"%d"' % number for number in range(450_000)])

        def response(_: Received) -> Answer:
            reactor.callLater(0.2, asked.callback, None)  # type: ignore[attr-defined]
            return answer

        self.evil.answers["send_join_v2"] = response
        joining = Deferred.fromCoroutine(self.alice.join(self.room.room_id, via=[self.evil.name]))
        joining.addErrback(lambda _: None)
        await asked

        began = monotonic()
        await self.here.stop()
        self.assertLess(monotonic() - began, 3)
        await joining
        await self.here.start()


class IncompleteStateTests(GarbageTestCase):
    """A state of which something is missing, or not to be verified."""

    def graph(self, version: str) -> RoomGraph:
        """A room with a member whose auth events are unavailable."""
        room = self.evil.create_room(version)
        mallory, trent = self.evil.user("mallory"), self.evil.user("trent")
        invite = room.member(trent, "invite", sender=mallory)
        room.member(trent, "join")
        room.withheld.add(invite.event_id)
        return room

    async def test_unauthorised_events_are_left_out(self) -> None:
        """The room is joined with the rest."""
        for version in ("1", "11", "12"):
            room = self.graph(version)

            await self.alice.join(room.room_id, via=[self.evil.name])

            members = await self.alice.get(f"/rooms/{quote(room.room_id)}/joined_members")
            self.assertEqual({*members["joined"]}, {self.alice.user_id, self.evil.user("mallory")})
            await self.evil.hears(await self.alice.say(room.room_id, "here"))

    async def test_missing_events_are_fetched_one_by_one(self) -> None:
        """A server that omitted events in its response may still have them."""
        room = self.graph("12")
        (missing,) = room.withheld
        self.evil.answers["get_event"] = lambda request: Answer(
            200, {"pdus": [room.events[request.path["event_id"]].pdu]}
        )

        await self.alice.join(room.room_id, via=[self.evil.name])

        members = await self.alice.get(f"/rooms/{quote(room.room_id)}/joined_members")
        self.assertIn(self.evil.user("trent"), members["joined"])
        self.assertIn(missing, [one.path.get("event_id") for one in self.evil.received])

    async def test_an_unsigned_event_does_not_prevent_the_join(self) -> None:
        """It is dropped, with the events that depend on it."""
        room = self.graph("12")
        good: Any = self.evil._good.send_join_v2

        def unsigned(request: Received) -> Answer:
            body = msgspec.json.decode(good(request).body)
            for pdu in [*body["state"], *body["auth_chain"]]:
                if pdu.get("state_key") == self.evil.user("trent"):
                    pdu["signatures"] = {}
            return Answer(200, body)

        self.evil.answers["send_join_v2"] = unsigned

        await self.alice.join(room.room_id, via=[self.evil.name])

        await self.evil.hears(await self.alice.say(room.room_id, "here"))

    async def test_without_the_auth_events_of_the_join_it_fails(self) -> None:
        """The join itself cites the join rules and the power levels."""
        room = self.evil.create_room("11")
        room.withheld.add(room.state_event("m.room.join_rules").event_id)

        attempt = self.alice.join(room.room_id, via=[self.evil.name])

        await self.assert_refused("M_UNKNOWN", attempt, 502)
