"""Restricted joins: the signature of the authorising server is required.

Spec: https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms
"""

import msgspec

from homeserver.protocol.events import Event
from tests.support.fake_server.fake_http import Answer, Received
from tests.support.fake_server.fake_responses import DefaultResponses
from tests.support.organisations import FederationTestCase

VIA = "join_authorised_via_users_server"


class RestrictedJoinTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.fake()
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.room = self.there.create_room("11", join_rule="restricted")
        self.good = DefaultResponses(self.there)
        self.there.answers["make_join"] = self.make_join

    def make_join(self, request: Received) -> Answer:
        """A template by the right of the room's creator."""
        answer = msgspec.json.decode(self.good.make_join(request).body)
        mallory = self.there.user("mallory")
        answer["event"]["content"][VIA] = mallory
        by_right_of = self.room.state_event("m.room.member", mallory)
        answer["event"]["auth_events"].append(by_right_of.event_id)
        return Answer(200, answer)

    def send_join(self, request: Received, *, signs: bool, gives: bool) -> Answer:
        """Take the join; sign it or not, and give it back or not."""
        answer = msgspec.json.decode(self.good.send_join_v2(request).body)
        event, key = Event.from_pdu(self.room.version, answer.pop("event")), self.there.key
        if signs:
            signature = key.sign(event.signing_bytes())
            event = event.with_signature(self.there.name, key.key_id, signature)
        if gives:
            answer["event"] = event.pdu
        return Answer(200, answer)

    async def test_an_authorised_join_has_that_servers_signature(self) -> None:
        """All other servers can verify it, and the user is in the room."""
        self.there.answers["send_join_v2"] = lambda request: self.send_join(
            request, signs=True, gives=True
        )

        await self.alice.join(self.room.room_id, via=[self.there.name])

        member = await self.alice.state(self.room.room_id, "m.room.member", self.alice.user_id)
        self.assertEqual(member[VIA], self.there.user("mallory"))

    async def test_a_join_without_the_signature_is_refused(self) -> None:
        """Other servers would refuse it, and all later events of its sender."""
        for gives in (True, False):
            self.there.answers["send_join_v2"] = lambda request, gives=gives: self.send_join(
                request, signs=False, gives=gives
            )

            attempt = self.alice.join(self.room.room_id, via=[self.there.name])

            await self.assert_refused("M_UNKNOWN", attempt, 502)
            self.assertEqual(await self.alice.get("/joined_rooms"), {"joined_rooms": []})

    async def test_the_join_comes_back_as_it_was_sent(self) -> None:
        """A server that gives back another content has changed what its user says."""

        def changed(request: Received) -> Answer:
            answer = msgspec.json.decode(self.good.send_join_v2(request).body)
            answer["event"]["content"]["displayname"] = "Mallory"
            return Answer(200, answer)

        room = self.there.create_room("11")
        del self.there.answers["make_join"]
        self.there.answers["send_join_v2"] = changed

        attempt = self.alice.join(room.room_id, via=[self.there.name])

        await self.assert_refused("M_UNKNOWN", attempt, 502)
