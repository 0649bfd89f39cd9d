"""Joining a room through one of several servers, of which some fail.

Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from federation.remote import staggered_requests
from homeserver.protocol.events import Event
from tests.support.fake_server.fake_http import FAILURE, Answer, Stall, always
from tests.support.fake_server.server import FakeServer
from tests.support.organisations import FederationTestCase


class JoiningTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.patch(staggered_requests, "STAGGER_SECONDS", 0.1)
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.other = await self.fake()
        self.good = await self.fake()
        self.room = self.good.create_room()

    async def join(self) -> None:
        """Join by the two servers."""
        await self.alice.join(self.room.room_id, via=[self.other.name, self.good.name])

    def operations_at(self, server: FakeServer) -> list[str]:
        """The join requests that a server received."""
        kinds = ("make_join", "send_join_v2")
        return [one.operation for one in server.received if one.operation in kinds]

    async def test_a_server_that_does_not_respond_delays_no_join(self) -> None:
        """The user is in the room in a moment, not after a minute."""
        self.other.answers["make_join"] = always(Stall())

        await self.join()

        assert self.operations_at(self.other) == ["make_join"]
        assert self.operations_at(self.good) == ["make_join", "send_join_v2"]

    async def test_a_server_out_of_order_is_passed_over(self) -> None:
        """Whichever of the two steps it fails in."""
        for step in ("make_join", "send_join_v2"):
            self.other.answers = {step: always(FAILURE)}
            self.other.rooms[self.room.room_id] = self.room
            await self.join()
            await self.alice.leave(self.room.room_id)

            assert self.operations_at(self.good) == ["make_join", "send_join_v2"]
            self.good.received.clear()

    async def test_a_refusal_is_final(self) -> None:
        """A banned user gets an error, and no other server gets a request."""
        refusal = Answer(403, {"errcode": "M_FORBIDDEN", "error": "You are banned"})
        self.other.answers["make_join"] = always(refusal)

        error = await self.assert_refused("M_FORBIDDEN", self.join(), 403)

        assert error.body["error"] == "You are banned"
        assert self.operations_at(self.good) == []

    async def test_a_client_is_not_to_blame_for_the_requests_of_its_server(self) -> None:
        """The other server finds a fault in what this one has sent: the client sent none of it."""
        for step in ("make_join", "send_join_v2"):
            for errcode in ("M_INVALID_PARAM", "M_MISSING_PARAM", "M_BAD_JSON", "M_NOT_JSON"):
                malformed = Answer(400, {"errcode": errcode, "error": "What is this?"})
                self.other.answers = {step: always(malformed)}
                self.other.rooms[self.room.room_id] = self.room
                join = self.alice.join(self.room.room_id, via=[self.other.name])

                await self.assert_refused("M_UNKNOWN", join, 502)


class AnsweredJoinTests(FederationTestCase):
    async def test_an_auth_chain_is_sent_in_the_order_of_authority(self) -> None:
        """A reader meets each event after the events that authorise it."""
        fake, here = await self.fake(), await self.organisation()
        alice = await here.register("alice")
        for version in ("1", "11", "12"):
            room_id = await alice.create_room(room_version=version, public=True)
            levels = await alice.state(room_id, "m.room.power_levels")
            for ban in range(51, 59):
                await alice.set_state(room_id, "m.room.power_levels", levels | {"ban": ban})

            room = await fake.join(here.name, room_id, fake.user("mallory"))

            chain = fake.join_responses[room_id]["auth_chain"]
            told = [Event.from_pdu(room.version, pdu) for pdu in chain]
            place = {event.event_id: number for number, event in enumerate(told)}
            self.assertGreater(len(told), 8)
            for event in told:
                cited = [place[one] for one in event.auth_event_ids if one in place]
                self.assertLess(max(cited, default=-1), place[event.event_id])
