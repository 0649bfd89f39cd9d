"""Templates of member events: those of this server, and how it completes those of others.

Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from typing import Any
from urllib.parse import quote

import msgspec

from tests.support.fake_server.fake_http import Answer, Received
from tests.support.organisations import FederationTestCase


class TemplateTests(FederationTestCase):
    async def test_templates_have_what_the_specification_requires(self) -> None:
        """Other servers may decode them strictly."""
        here, there = await self.organisation(), await self.fake()
        alice, zoe = await here.register("alice"), there.user("zoe")
        rule = {"type": "m.room.join_rules", "content": {"join_rule": "knock"}}
        open_room = await alice.create_room(public=True, room_version="11")
        knocking = await alice.create_room(initial_state=[rule], room_version="11")
        inviting = await alice.create_room(room_version="11")
        await alice.post(f"/rooms/{inviting}/invite", {"user_id": zoe})

        for kind, membership, room in (
            ("make_join", "join", open_room),
            ("make_knock", "knock", knocking),
            ("make_leave", "leave", inviting),
        ):
            path = f"/_matrix/federation/v1/{kind}/{quote(room)}/{quote(zoe)}"
            query = "" if kind == "make_leave" else "?ver=11"
            status, answer = await there.ask(here.name, "GET", path + query)

            self.assertEqual((status, answer["room_version"]), (200, "11"), answer)
            event = answer["event"]
            self.assertIsInstance(event["origin_server_ts"], int)
            required = ("type", "sender", "state_key", "origin", "content")
            expected = ("m.room.member", zoe, zoe, here.name, {"membership": membership})
            self.assertEqual(tuple(event[name] for name in required), expected)

    async def test_completed_templates_name_the_server(self) -> None:
        """The joining server is expected to replace the member of the template."""
        here, there = await self.organisation(), await self.fake()
        alice = await here.register("alice")
        room = there.create_room().room_id

        await alice.join(room, via=[there.name])

        (sent,) = [one.body for one in there.received if one.operation == "send_join_v2"]
        self.assertEqual((sent["origin"], sent["content"]["membership"]), (here.name, "join"))

    async def test_a_template_of_another_event_is_not_signed(self) -> None:
        """A server could have a user do something else than what they wanted."""
        here, there = await self.organisation(), await self.fake()
        alice = await here.register("alice")
        room = there.create_room().room_id
        good = there._good.make_join
        for change in (
            {"type": "m.room.message"},
            {"room_id": "!other:example.org"},
            {"sender": there.user("mallory")},
            {"state_key": there.user("mallory")},
            {"content": {"membership": "leave"}},
            {"content": {}},
        ):

            def changed(request: Received, change: dict[str, Any] = change) -> Answer:
                template = msgspec.json.decode(good(request).body)
                return Answer(200, {**template, "event": {**template["event"], **change}})

            there.answers["make_join"] = changed
            join = alice.join(room, via=[there.name])
            await self.assert_refused("M_UNKNOWN", join, 502)

        self.assertEqual({one.operation for one in there.received}, {"make_join"})

    async def test_completed_templates_that_are_not_signed_are_refused(self) -> None:
        """Other servers have the same code for it."""
        here, there = await self.organisation(), await self.fake()
        alice, zoe = await here.register("alice"), there.user("zoe")
        room = await alice.create_room(public=True, room_version="11")
        template = f"/_matrix/federation/v1/make_join/{quote(room)}/{quote(zoe)}?ver=11"
        _, answer = await there.ask(here.name, "GET", template)

        for version in ("v1", "v2"):
            path = f"/_matrix/federation/{version}/send_join/{quote(room)}/%24x"
            status, refused = await there.ask(here.name, "PUT", path, answer["event"])
            self.assertEqual((status, refused["errcode"]), (403, "M_FORBIDDEN"))
