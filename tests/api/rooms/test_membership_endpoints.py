"""One path for memberships: the checks are the same for all requests and endpoints."""

import contextlib
import re
from typing import Any
from urllib.parse import quote

import msgspec

from tests.fuzz.routes import all_routes
from tests.support.actors import Actor
from tests.support.refused import Refused
from tests.support.server import ServerTestCase

# They end the session with which the other routes are tried.
ENDING = ("logout", "logout_all", "deactivate_account", "delete_devices", "delete_device")


class MembershipEndpointTests(ServerTestCase):
    settings = {"rate_limits": {"enabled": False}}  # noqa: RUF012  # replaced, never changed

    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")

    async def restricted_room(self, rule: str = "restricted", version: str = "11") -> str:
        """A room for the members of a space that Bob is not in."""
        space = await self.alice.create_room()
        allow = [{"type": "m.room_membership", "room_id": space}]
        content = {"join_rule": rule, "allow": allow}
        return await self.alice.create_room(
            room_version=version,
            initial_state=[{"type": "m.room.join_rules", "content": content}],
        )

    async def membership(self, room: str, actor: Actor) -> str | None:
        return (await self.alice.members(room)).get(actor.user_id)

    async def member(self, room: str, actor: Actor) -> Any:
        return await actor.state(room, "m.room.member", actor.user_id)

    async def test_a_user_cannot_authorise_their_own_join(self) -> None:
        """A user who names a moderator in their own member event cannot join."""
        for rule, version in (
            ("restricted", "8"),
            ("restricted", "11"),
            ("restricted", "12"),
            ("knock_restricted", "10"),
            ("knock_restricted", "12"),
        ):
            room = await self.restricted_room(rule, version)
            forged = {
                "membership": "join",
                "join_authorised_via_users_server": self.alice.user_id,
            }

            attempt = self.bob.set_state(room, "m.room.member", forged, self.bob.user_id)

            await self.assert_refused("M_FORBIDDEN", attempt, 403)
            self.assertIsNone(await self.membership(room, self.bob))

    async def test_a_join_needs_no_body(self) -> None:
        """It has no required members. A body that is none is an error of the client."""
        room = await self.alice.create_room(public=True)
        for path in (f"/join/{room}", f"/rooms/{room}/join"):
            for body in (b"null", b"[]", b'"join"'):
                await self.assert_refused("M_BAD_JSON", self.bob.post(path, body), 400)
            for fine in (b"", b"{}"):
                await self.bob.post(path, fine)

    async def test_no_route_lets_a_forged_join_in(self) -> None:
        """All routes of the client API are tried, those that are new tomorrow included."""
        room = await self.restricted_room()
        content = {
            "membership": "join",
            "join_authorised_via_users_server": self.alice.user_id,
            "third_party_invite": {"signed": {"mxid": self.bob.user_id, "token": "x"}},
        }
        body = {
            **content,
            "content": content,
            "room_id": room,
            "user_id": self.bob.user_id,
            "new_version": "12",
            "displayname": "Bob",
            "events": [{"type": "m.room.member", "state_key": self.bob.user_id, **content}],
        }
        filled = {
            "room_id": room,
            "room_id_or_alias": room,
            "event_type": "m.room.member",
            "state_key": self.bob.user_id,
            "user_id": self.bob.user_id,
            "txn_id": "1",
            "key_name": "displayname",
        }
        tried = 0
        for route in all_routes():
            if route.method == "GET" or route.handler.__name__ in ENDING:
                continue
            path = re.sub(
                r"\{(\w+)\}", lambda name: quote(filled.get(name[1], "x"), safe=""), route.path
            )
            with contextlib.suppress(Refused, msgspec.DecodeError):
                await self.bob.request(route.method, path, body)
            tried += 1
            self.assertIsNone(await self.membership(room, self.bob), f"{route.method} {path}")
        self.assertGreater(tried, 50)

    async def test_an_old_member_event_is_put_back_with_a_new_name(self) -> None:
        """Clients rename their user in one room so; whose right it once was is left out."""
        room = await self.restricted_room()
        await self.alice.invite(room, self.bob)
        await self.bob.join(room)
        old = {
            "membership": "join",
            "displayname": "Robert",
            "org.example.colour": "red",
            "join_authorised_via_users_server": "@moderator:elsewhere.example",
        }

        await self.bob.set_state(room, "m.room.member", old, self.bob.user_id)

        del old["join_authorised_via_users_server"]
        self.assertEqual(await self.member(room, self.bob), old)
        await self.bob.say(room, "I can still speak")

    async def test_a_name_for_one_room_survives(self) -> None:
        """A display name that a client set for one room is not overwritten with the profile."""
        await self.bob.put(f"/profile/{self.bob.user_id}/displayname", {"displayname": "Bob"})
        room = await self.alice.create_room(public=True)
        content = {"membership": "join", "displayname": "Bobby", "avatar_url": "mxc://x/y"}

        await self.bob.set_state(room, "m.room.member", content, self.bob.user_id)
        self.assertEqual(await self.member(room, self.bob), content)

        content["displayname"] = "Rob"
        await self.bob.set_state(room, "m.room.member", content, self.bob.user_id)
        self.assertEqual(await self.member(room, self.bob), content)

    async def test_members_of_the_space_join_by_state_too(self) -> None:
        """The server itself finds by whose right, as for the other endpoint."""
        space = await self.alice.create_room(public=True)
        allow = [{"type": "m.room_membership", "room_id": space}]
        rule = {"join_rule": "restricted", "allow": allow}
        room = await self.alice.create_room(
            room_version="11", initial_state=[{"type": "m.room.join_rules", "content": rule}]
        )
        await self.bob.join(space)
        content = {"membership": "join", "displayname": "Bob"}

        await self.bob.set_state(room, "m.room.member", content, self.bob.user_id)

        expected = {**content, "join_authorised_via_users_server": self.alice.user_id}
        self.assertEqual(await self.member(room, self.bob), expected)

    async def test_rooms_begin_with_no_memberships_that_a_client_wrote(self) -> None:
        """A client cannot join other users, or invite users who block invites."""
        for membership in ("join", "invite", "ban"):
            for user_id in (self.bob.user_id, "@bob:elsewhere.example"):
                state = {
                    "type": "m.room.member",
                    "state_key": user_id,
                    "content": {"membership": membership},
                }
                attempt = self.alice.create_room(initial_state=[state])
                await self.assert_refused("M_BAD_JSON", attempt, 400)
        self.assertEqual(await self.alice.get("/joined_rooms"), {"joined_rooms": []})

    async def test_invites_as_state_ask_the_invited_user(self) -> None:
        """A user who blocks invites gets none, and a forged proof is removed."""
        room = await self.alice.create_room()
        content = {"membership": "invite", "third_party_invite": {"signed": {}}, "is_direct": True}
        path = f"/user/{self.bob.user_id}/account_data/m.invite_permission_config"
        await self.bob.put(path, {"default_action": "block"})

        attempt = self.alice.set_state(room, "m.room.member", content, self.bob.user_id)

        await self.assert_refused("M_INVITE_BLOCKED", attempt, 403)
        await self.bob.put(path, {})
        await self.alice.set_state(room, "m.room.member", content, self.bob.user_id)
        invited = await self.alice.state(room, "m.room.member", self.bob.user_id)
        self.assertEqual(invited, {"membership": "invite", "is_direct": True})

    async def test_an_invalid_membership_is_refused(self) -> None:
        """A faulty client gets an error that says what is wrong."""
        room = await self.alice.create_room()
        for content in ({}, {"membership": None}, {"membership": ["join"]}, {"membership": "JOIN"}):
            attempt = self.alice.set_state(room, "m.room.member", content, self.bob.user_id)
            await self.assert_refused("M_BAD_JSON", attempt, 400)
        for state_key in ("", "bob", "@bob", self.bob.user_id[1:]):
            for membership in ("invite", "ban", "leave"):
                attempt = self.alice.set_state(
                    room, "m.room.member", {"membership": membership}, state_key
                )
                await self.assert_refused("M_INVALID_PARAM", attempt, 400)
        for membership in ("join", "knock"):
            attempt = self.alice.set_state(
                room, "m.room.member", {"membership": membership}, self.bob.user_id
            )
            await self.assert_refused("M_FORBIDDEN", attempt, 403)

    async def test_a_repeated_request_gets_the_same_answer(self) -> None:
        """A client that got no answer to a kick or a ban asks once more."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room)
        for content in (
            {"membership": "leave", "reason": "Noise"},
            {"membership": "ban", "reason": "More noise"},
            {"membership": "leave"},
        ):
            first = await self.alice.set_state(room, "m.room.member", content, self.bob.user_id)
            again = await self.alice.set_state(room, "m.room.member", content, self.bob.user_id)
            self.assertEqual(first, again)
        self.assertEqual(await self.membership(room, self.bob), "leave")

    async def test_a_member_event_without_state_key_is_refused(self) -> None:
        """It would be a message that looks like a membership."""
        room = await self.alice.create_room()
        content = {"membership": "ban"}

        attempt = self.alice.send(room, "m.room.member", content)

        await self.assert_refused("M_FORBIDDEN", attempt, 403)


class RateOfMembershipTests(ServerTestCase):
    settings = {  # noqa: RUF012  # replaced, never changed
        "rate_limits": {
            "invite": {"per_second": 0.001, "burst": 2},
            "join": {"per_second": 0.001, "burst": 2},
        }
    }

    async def test_invites_and_joins_as_state_have_the_limits_of_invites_and_joins(self) -> None:
        """Mass invites are slowed down at either endpoint; display names are not counted."""
        alice, bob = await self.register("alice"), await self.register("bob")
        room = await alice.create_room()
        content = {"membership": "invite"}
        for number in range(2):
            await alice.set_state(room, "m.room.member", content, f"@user{number}:example.org")

        attempt = alice.set_state(room, "m.room.member", content, bob.user_id)

        await self.assert_refused("M_LIMIT_EXCEEDED", attempt, 429)
        public = [await alice.create_room(public=True) for _ in range(3)]
        join = {"membership": "join"}
        for room in public[:2]:
            await bob.set_state(room, "m.room.member", join, bob.user_id)
            renamed = {**join, "displayname": room}
            await bob.set_state(room, "m.room.member", renamed, bob.user_id)
        attempt = bob.set_state(public[2], "m.room.member", join, bob.user_id)
        await self.assert_refused("M_LIMIT_EXCEEDED", attempt, 429)
