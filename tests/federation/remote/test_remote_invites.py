"""Remote invites, honest and not: who may send, replace and rescind them, and how many.

Spec: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
"""

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from federation.receiving import rescinded_invites
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.rooms.membership import out_of_room_memberships
from tests.support.actors import Actor
from tests.support.fake_server.fake_http import Answer, Received, always
from tests.support.fake_server.server import FakeServer
from tests.support.organisations import FederationTestCase
from tests.support.room_graph import RoomGraph


class RemoteInviteTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.patch(rescinded_invites, "PROPAGATION_WAIT_SECONDS", 0.1)
        self.good = await self.fake()
        self.evil = await self.fake()
        self.here = await self.organisation()
        self.bob = await self.here.register("bob")
        self.room = self.good.create_room("11", join_rule="invite")
        self.alice, self.mallory = self.good.user("alice"), self.evil.user("mallory")

    def member(
        self,
        by: FakeServer,
        membership: str,
        *,
        room: str | None = None,
        sender: str | None = None,
        **content: Any,
    ) -> Event:
        """A member event of Bob's that a server makes by itself, in any room."""
        graph = RoomGraph(ROOM_VERSIONS["11"], room or self.room.room_id, by.name, by.key)
        return graph.build(
            "m.room.member",
            {"membership": membership, **content},
            sender=sender or by.user("mallory"),
            state_key=self.bob.user_id,
            after=[],
            auth_events=[],
            depth=10,
        )

    async def send_invite(
        self,
        by: FakeServer,
        event: Event,
        told: list[Mapping[str, Any]] | None = None,
        *,
        name: str = "Room",
    ) -> int:
        """Send an invite; gives the status."""
        state = {"type": "m.room.name", "state_key": "", "sender": event.sender}
        body = {
            "event": event.pdu,
            "room_version": "11",
            "invite_room_state": told or [{**state, "content": {"name": name}}],
        }
        path = f"/_matrix/federation/v2/invite/{quote(event.room_id)}/"
        path += quote(event.event_id, safe="")
        status, _ = await by.ask(self.here.name, "PUT", path, body)
        return status

    async def invite(self, by: FakeServer, *, name: str = "Room", **how: Any) -> Event:
        """An invite that is taken."""
        event = self.member(by, "invite", **how)
        self.assertEqual(await self.send_invite(by, event, name=name), 200)
        return event

    async def shown(self, actor: Actor) -> dict[str, str]:
        """The inviter and the room of an invite that a user's client shows."""
        rooms = (await actor.sync()).get("rooms", {}).get("invite", {})
        return {
            room: next(
                event["sender"]
                for event in section["invite_state"]["events"]
                if event["type"] == "m.room.member" and event["state_key"] == actor.user_id
            )
            for room, section in rooms.items()
        }

    async def test_no_server_invites_for_a_user_of_another_server(self) -> None:
        """A third-party invite, real or not, makes no difference."""
        for proof in ({}, "junk", {"signed": {"mxid": self.bob.user_id, "token": "t"}}, None):
            content = {} if proof is None else {"third_party_invite": proof}
            event = self.member(self.evil, "invite", sender=self.alice, **content)
            self.assertEqual(await self.send_invite(self.evil, event), 403)
            # Of its own user, but without its signature.
            event = self.member(self.good, "invite", sender=self.mallory, **content)
            self.assertEqual(await self.send_invite(self.evil, event), 403)

        self.assertEqual(await self.shown(self.bob), {})

    async def test_a_filter_blocks_and_ignores_remote_users(self) -> None:
        """An ignored invite is signed like any other, and nobody sees it before the filter goes."""
        path = f"/user/{self.bob.user_id}/account_data/m.invite_permission_config"
        filtered = {"blocked_users": ["@mallory:*"], "ignored_users": [self.alice]}
        await self.bob.put(path, filtered)
        event = self.member(self.evil, "invite")

        self.assertEqual(await self.send_invite(self.evil, event), 403)
        await self.invite(self.good, sender=self.alice)

        self.assertEqual(await self.shown(self.bob), {})
        await self.bob.put(path, {**filtered, "enabled": False})
        self.assertEqual(await self.shown(self.bob), {self.room.room_id: self.alice})

    async def test_a_third_party_invite_comes_from_the_inviters_server(self) -> None:
        """This server has asked that server to turn it into an invite."""
        proof = {"display_name": "b...", "signed": {"mxid": self.bob.user_id, "token": "t"}}
        event = self.member(self.good, "invite", sender=self.alice, third_party_invite=proof)

        self.assertEqual(await self.send_invite(self.good, event), 200)

        self.assertEqual(await self.shown(self.bob), {self.room.room_id: self.alice})

    async def test_a_strangers_invite_does_not_replace_an_honest_one(self) -> None:
        """Nor does the end of it end the other, which its own server ends."""
        self.good.answers["make_leave"] = lambda _: self.template()
        await self.invite(self.good, sender=self.alice)
        await self.invite(self.evil)
        room = self.room.room_id
        self.assertEqual(await self.shown(self.bob), {room: self.alice})

        for membership in ("leave", "ban"):
            await self.evil.send(self.here.name, [self.member(self.evil, membership)])
            self.assertEqual(await self.shown(self.bob), {room: self.alice})

        await self.good.send(self.here.name, [self.member(self.good, "leave", sender=self.alice)])
        self.assertEqual(await self.shown(self.bob), {})

    async def test_a_malicious_first_invite_does_not_block_an_honest_one(self) -> None:
        """A server frees its place by rescinding its own invite."""
        self.good.answers["make_leave"] = lambda _: self.template()
        room = self.room.room_id
        await self.invite(self.evil)
        self.assertEqual(await self.shown(self.bob), {room: self.mallory})
        await self.invite(self.good, sender=self.alice, name="Garden")

        await self.evil.send(self.here.name, [self.member(self.evil, "leave")])

        self.assertEqual(await self.shown(self.bob), {room: self.alice})
        section = (await self.bob.sync())["rooms"]["invite"][room]["invite_state"]["events"]
        names = [one["content"]["name"] for one in section if one["type"] == "m.room.name"]
        self.assertEqual(names, ["Garden"])

    async def test_an_honest_server_ends_only_its_own_invite(self) -> None:
        """The malicious one stays visible, since no other server can know of its room."""
        self.evil.answers["make_leave"] = lambda _: self.template()
        await self.invite(self.evil)
        await self.invite(self.good, sender=self.alice)

        await self.good.send(self.here.name, [self.member(self.good, "leave", sender=self.alice)])

        self.assertEqual(await self.shown(self.bob), {self.room.room_id: self.mallory})
        await self.evil.send(self.here.name, [self.member(self.evil, "leave")])
        self.assertEqual(await self.shown(self.bob), {})

    async def test_a_decline_ends_all_invites_to_a_room(self) -> None:
        """The servers are asked in turn, first that of the shown invite."""
        self.good.rooms[self.room.room_id] = self.room
        await self.invite(self.good, sender=self.alice)
        await self.invite(self.evil)

        await self.bob.leave(self.room.room_id)

        self.assertEqual(await self.shown(self.bob), {})
        operations = [each.operation for each in self.good.received]
        self.assertIn("send_leave_v2", operations)

    async def test_a_server_renews_its_own_invite(self) -> None:
        """A second one with another reason is the one that counts, and counts once."""
        self.patch(out_of_room_memberships, "MAX_OF_SERVER_TO_USER", 1)
        for reason in ("first", "second"):
            await self.invite(self.good, sender=self.alice, reason=reason)

        section = (await self.bob.sync())["rooms"]["invite"][self.room.room_id]
        own = section["invite_state"]["events"][-1]
        self.assertEqual(own["content"]["reason"], "second")

    async def test_large_invites_in_large_numbers_are_not_stored(self) -> None:
        """A user who returns from a holiday has a sync that a malicious server has not filled."""
        junk = [
            {
                "type": f"org.example.{number}",
                "state_key": "",
                "sender": self.mallory,
                "content": {
                    "body": hashlib.sha256(bytes([number])).hexdigest() * (100 + number % 2 * 100)
                },
            }
            for number in range(90)
        ]
        name = {"type": "m.room.name", "state_key": "", "sender": self.mallory}
        statuses = []
        for number in range(60):
            event = self.member(self.evil, "invite", room=f"!{number}:{self.evil.name}")
            told = [{**name, "content": {"name": f"Room {number}"}}, *junk]
            statuses.append(await self.send_invite(self.evil, event, told))

        answer = await self.bob.sync()

        self.assertEqual(set(statuses), {200, 403})
        size = len(msgspec.json.encode(answer))
        self.assertLess(size, 1_500_000)
        self.assertIn("Room 1", str(answer))

    async def test_pending_invites_of_one_server_are_bounded(self) -> None:
        """So are those of one user, from all servers; answered ones do not count."""
        self.patch(out_of_room_memberships, "MAX_OF_SERVER_TO_USER", 3)
        self.patch(out_of_room_memberships, "MAX_OF_USER", 4)
        rooms = [f"!{number}:{self.evil.name}" for number in range(4)]
        for room in rooms[:3]:
            await self.invite(self.evil, room=room)
        more = self.member(self.evil, "invite", room=rooms[3])
        self.assertEqual(await self.send_invite(self.evil, more), 403)

        await self.invite(self.good, sender=self.alice)
        third = await self.fake()
        late = self.member(third, "invite", room=f"!late:{third.name}")
        self.assertEqual(await self.send_invite(third, late), 403)

        await self.bob.leave(rooms[0])
        self.assertEqual(await self.send_invite(self.evil, more), 200)
        self.assertEqual(await self.send_invite(third, late), 403)
        self.patch(out_of_room_memberships, "MAX_OF_USER", 5)
        self.assertEqual(await self.send_invite(third, late), 200)

    async def test_a_knock_is_not_replaced_by_a_strangers_invite(self) -> None:
        """The invite is shown, and when it is rescinded the knock is still pending."""
        room = self.good.create_room("11", join_rule="knock")
        self.good.answers["make_leave"] = lambda _: self.template()
        await self.bob.knock(room.room_id, via=[self.good.name])
        self.room = room

        await self.invite(self.evil)
        self.assertEqual(await self.shown(self.bob), {room.room_id: self.mallory})
        await self.evil.send(self.here.name, [self.member(self.evil, "leave")])

        rooms = (await self.bob.sync())["rooms"]
        self.assertEqual(([*rooms.get("knock", {})], rooms.get("invite", {})), ([room.room_id], {}))

    async def test_pending_invites_outlive_a_restart(self) -> None:
        """The server of an invite is stored."""
        self.good.answers["make_leave"] = lambda _: self.template()
        await self.invite(self.evil)
        await self.invite(self.good, sender=self.alice)

        await self.here.stop()
        await self.here.start()
        self.bob.url = self.here.url
        await self.evil.send(self.here.name, [self.member(self.evil, "leave")])

        self.assertEqual(await self.shown(self.bob), {self.room.room_id: self.alice})

    def template(self) -> Answer:
        """An answer by which the user could still leave the room."""
        event = {"type": "m.room.member", "content": {"membership": "leave"}}
        return Answer(200, {"room_version": "11", "event": event})


def sign_invite(there: FakeServer, request: Received) -> Answer:
    """The response of an old server to an invite: it signs the event."""
    pdu = {name: value for name, value in request.body.items() if name != "unsigned"}
    event = Event.from_pdu(ROOM_VERSIONS["1"], pdu)
    signature = there.key.sign(event.signing_bytes())
    signed = event.with_signature(there.name, there.key.key_id, signature)
    return Answer(200, [200, {"event": signed.pdu}])


class RefusedInviteTests(FederationTestCase):
    async def test_old_servers_are_asked_again_as_they_expect_it(self) -> None:
        """About rooms of the oldest versions; they can know no others."""
        there, here = await self.fake(), await self.organisation()
        alice = await here.register("alice")
        for status, errcode in ((400, "M_UNKNOWN"), (404, "M_UNRECOGNIZED")):
            error = {"errcode": errcode, "error": "What is this?"}
            there.answers["send_invite_v2"] = always(Answer(status, error))
            for version, has_old in (("1", True), ("2", True), ("1", False), ("3", True)):
                there.received.clear()
                there.answers.pop("send_invite_v1", None)
                if has_old:
                    there.answers["send_invite_v1"] = lambda request: sign_invite(there, request)
                room = await alice.create_room(room_version=version)
                attempt = alice.post(f"/rooms/{quote(room)}/invite", {"user_id": there.user("m")})
                asked = ["send_invite_v2"]
                if version == "3" or not has_old:
                    # Not that this server has no such endpoint, nor that the old one is missing.
                    shown = 400 if status == 400 else 502
                    await self.assert_refused("M_UNKNOWN", attempt, shown)
                else:
                    await attempt
                if version != "3":
                    asked.append("send_invite_v1")
                invites = [one.operation for one in there.received if "invite" in one.operation]
                self.assertEqual(invites, asked)

    async def test_invites_without_a_room_version_are_to_old_rooms(self) -> None:
        """The events of later versions have no id."""
        there, here = await self.fake(), await self.organisation()
        bob = await here.register("bob")
        for version, expected in (("1", 200), ("3", 400)):
            room = there.create_room(version, join_rule="invite")
            event = room.member(bob.user_id, "invite", sender=there.user("alice"))
            event_id = quote(event.event_id, safe="")  # those of version 3 may have a slash
            path = f"/_matrix/federation/v1/invite/{quote(room.room_id)}/{event_id}"
            status, _ = await there.ask(here.name, "PUT", path, event.pdu)
            self.assertEqual(status, expected)

    async def test_a_client_learns_that_a_server_lacks_the_version_of_the_room(self) -> None:
        """The code is not the one of a join, which would blame the client's own server."""
        there, here = await self.fake(), await self.organisation()
        alice = await here.register("alice")
        room = await alice.create_room(room_version="11")
        error = {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "error": "Too new", "room_version": "11"}
        there.answers["send_invite_v2"] = always(Answer(400, error))

        attempt = alice.post(f"/rooms/{room}/invite", {"user_id": there.user("mallory")})
        refused = await self.assert_refused("M_UNSUPPORTED_ROOM_VERSION", attempt, 400)

        self.assertEqual(refused.body["error"], "Too new")
