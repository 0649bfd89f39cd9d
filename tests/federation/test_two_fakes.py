"""Scripted servers among themselves: they enforce the protocol that they test."""

import shutil
import tempfile
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.support.certificates import CertificateAuthority
from tests.support.fake_server.fake_http import GARBAGE, Answer, always
from tests.support.fake_server.server import FakeServer


class TwoFakesTests(TestCase):
    async def setUp(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="homeserver-"))
        self.addCleanup(shutil.rmtree, directory)
        authority = CertificateAuthority(directory)
        self.one, self.other = FakeServer(authority), FakeServer(authority)
        for fake in (self.one, self.other):
            await fake.start()
            self.addCleanup(lambda fake=fake: Deferred.fromCoroutine(fake.stop()))

    async def test_joining_gives_the_full_room(self) -> None:
        """The joined server has the state and the auth events of the other."""
        for version in ROOM_VERSIONS:
            room = self.one.create_room(version)
            room.crowd(3)

            joined = await self.other.join(self.one.name, room.room_id, self.other.user("bob"))

            self.assertEqual(joined.state_after(joined.ends), room.state_after(room.ends))
            self.assertEqual(joined.ends, room.ends)

    async def test_transactions_bring_events_and_edus(self) -> None:
        """A test sees everything that was sent."""
        room = self.one.create_room()
        joined = await self.other.join(self.one.name, room.room_id, self.other.user("bob"))
        typing = {"edu_type": "m.typing", "content": {"room_id": room.room_id}}

        event = joined.say(self.other.user("bob"), "hello")
        await self.other.send(self.one.name, [event], [typing])

        self.assertEqual(await self.one.hears(event.event_id), event)
        self.assertEqual(self.one.edus, [typing])

    async def test_a_request_is_authenticated_by_its_signature(self) -> None:
        """A foreign key or another server's name gets an error."""
        stranger = self.other.key
        path = "/_matrix/federation/v1/query/profile?user_id=x"

        answers = [
            await self.other.ask(self.one.name, "GET", path, key=self.one.key),
            await self.other.ask(self.one.name, "GET", path, origin=self.one.name, key=stranger),
        ]
        honest = await self.other.ask(self.one.name, "GET", path)

        self.assertEqual([status for status, _ in answers], [401, 401])
        self.assertEqual(honest[0], 404)

    async def test_a_response_is_what_the_test_says(self) -> None:
        """Any response may be replaced, and only that one."""
        path = "/_matrix/federation/v1/version"
        self.one.answers["get_version"] = always(Answer(418, {"errcode": "M_TEAPOT"}))

        self.assertEqual(
            await self.other.ask(self.one.name, "GET", path), (418, {"errcode": "M_TEAPOT"})
        )
        self.one.answers["get_version"] = always(GARBAGE)
        self.assertEqual(
            await self.other.ask(self.one.name, "GET", path), (200, b"\x00\xff{no json")
        )

    async def test_withheld_events_are_not_given(self) -> None:
        """A gap in a graph cannot be filled by requests."""
        room = self.one.create_room()
        hidden, shown = room.say(self.one.user("mallory"), "a"), room.say(self.one.user("m"), "b")
        room.withheld.add(hidden.event_id)

        answers = [
            await self.other.ask(self.one.name, "GET", f"/_matrix/federation/v1/event/{event_id}")
            for event_id in (hidden.event_id, shown.event_id)
        ]

        self.assertEqual([status for status, _ in answers], [404, 200])
        self.assertEqual(answers[1][1]["pdus"], [shown.pdu])
