"""Inviting people by their addresses, across servers.

Spec: https://spec.matrix.org/v1.19/server-server-api/#third-party-invites
"""

import contextlib
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import ensureDeferred

from tests.support.actors import Actor
from tests.support.fake_server.scripted_peer import error
from tests.support.identity_server import API, IdentityServer
from tests.support.organisations import FederationTestCase
from tests.support.refused import Refused
from tests.support.watcher import eventually

ADDRESS = "carol@example.com"
INVITE = "m.room.third_party_invite"
ON_BIND = "/_matrix/federation/v1/3pid/onbind"
OUTBOUND = {"verify_certificates": False, "allow_private_addresses": True}


class InvitedAddressTestCase(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.identity = IdentityServer(self.authority)
        self.addCleanup(self.identity.stop)
        self.here = await self.organisation(outbound_http=OUTBOUND)
        self.alice = await self.here.register("alice")

    def address(self, address: str = ADDRESS) -> dict[str, str]:
        """The fields with which a client names the address to invite."""
        return {
            "id_server": self.identity.name,
            "id_access_token": "swordfish",
            "medium": "email",
            "address": address,
        }

    async def invite(self, room: str, actor: Actor | None = None) -> None:
        """Invite Carol by her address."""
        actor = actor or self.alice
        await actor.post(f"/rooms/{quote(room)}/invite", self.address())

    async def membership(self, actor: Actor, room: str) -> str | None:
        """A membership, as a user's own client sees it."""
        rooms = (await actor.sync()).get("rooms", {})
        return next((kind for kind in ("join", "invite") if room in rooms.get(kind, {})), None)


class InvitingTests(InvitedAddressTestCase):
    async def test_an_unpublished_address_gets_a_pending_invite(self) -> None:
        """The identity server can write to it; the room does not learn the address."""
        room = await self.alice.create_room(name="Garden")

        await self.invite(room)

        content = await self.alice.state(room, INVITE, "token0")
        key = self.identity.key.verify_key
        self.assertEqual((content["display_name"], content["public_key"]), ("c...@e...", key))
        self.assertEqual(content["key_validity_url"], content["public_keys"][0]["key_validity_url"])
        self.assertEqual(len(content["public_keys"]), 2)
        told = self.identity.invites["token0"]
        self.assertEqual(
            {name: told.get(name) for name in ("address", "room_id", "sender", "room_name")},
            {
                "address": ADDRESS,
                "room_id": room,
                "sender": self.alice.user_id,
                "room_name": "Garden",
            },
        )
        self.assertEqual(
            {one.header("Authorization") for one in self.identity.seen}, {"Bearer swordfish"}
        )

    async def test_a_published_address_invites_its_user(self) -> None:
        """The identity server gets only a hash, and sends no mail."""
        carol = await self.here.register("carol")
        self.identity.bound["email", ADDRESS] = carol.user_id
        room = await self.alice.create_room()

        await self.alice.post(f"/rooms/{quote(room)}/invite", self.address(" Carol@Example.COM"))

        self.assertEqual(await self.membership(carol, room), "invite")
        self.assertEqual(self.identity.invites, {})
        self.assertNotIn(b"example.com", b"".join(one.body for one in self.identity.seen))

    async def test_a_new_room_invites_addresses(self) -> None:
        """Users start a chat with a person who has no account yet."""
        room = await self.alice.create_room(invite_3pid=[self.address()])

        content = await self.alice.state(room, INVITE, "token0")
        self.assertEqual(content["display_name"], "c...@e...")

    async def test_a_user_who_may_not_invite_sends_no_mail(self) -> None:
        """A room cannot be used to send mails to strangers."""
        room = await self.alice.create_room(public=True)
        bob = await self.here.register("bob")
        await self.assert_refused("M_FORBIDDEN", self.invite(room, bob), 403)
        await bob.join(room)

        await self.assert_refused("M_FORBIDDEN", self.invite(room, bob), 403)

        self.assertEqual(self.identity.seen, [])

    async def test_an_outdated_hash_is_computed_again(self) -> None:
        """Identity servers change their hash pepper at any moment."""
        details = self.identity.answers[f"{API}/hash_details"]
        outdated = [{"algorithms": ["sha256"], "lookup_pepper": "old"}]
        self.identity.answers[f"{API}/hash_details"] = lambda request: (
            outdated.pop() if outdated else details(request)
        )
        room = await self.alice.create_room()

        await self.invite(room)

        self.assertEqual(outdated, [])
        self.assertIn("token0", self.identity.invites)

    async def test_an_address_mapped_to_no_user_is_invited_for_later(self) -> None:
        """Some identity servers list what they did not find as well."""
        hashed = self.identity._hash("email", ADDRESS)
        self.identity.answers[f"{API}/lookup"] = {"mappings": {hashed: None}}
        room = await self.alice.create_room()

        await self.invite(room)

        self.assertIn("token0", self.identity.invites)

    async def test_errors_of_the_identity_server_reach_the_client(self) -> None:
        """Only it knows which terms the user must accept."""
        room = await self.alice.create_room()
        refuses = error(403, "M_TERMS_NOT_SIGNED")
        for endpoint, answer, errcode, status in (
            ("lookup", refuses, "M_TERMS_NOT_SIGNED", 403),
            ("lookup", {"mappings": 5}, "M_UNKNOWN", 400),
            ("hash_details", {"algorithms": ["none"], "lookup_pepper": "x"}, "M_UNKNOWN", 400),
            ("store-invite", refuses, "M_TERMS_NOT_SIGNED", 403),
            ("store-invite", {"token": "a b", "public_keys": []}, "M_UNKNOWN", 400),
        ):
            good = self.identity.answers[f"{API}/{endpoint}"]
            self.identity.answers[f"{API}/{endpoint}"] = answer
            await self.assert_refused(errcode, self.invite(room), status)
            self.identity.answers[f"{API}/{endpoint}"] = good
        self.identity.bound["email", ADDRESS] = "nobody"
        await self.assert_refused("M_INVALID_PARAM", self.invite(room), 400)

        types = {event["type"] for event in await self.alice.get(f"/rooms/{quote(room)}/state")}
        self.assertNotIn(INVITE, types)

    async def test_nonsense_and_servers_that_are_not_trusted_are_refused(self) -> None:
        """Before anything is sent, and before a room is made."""
        strict = await self.organisation(
            outbound_http=OUTBOUND, third_party_ids={"identity_servers": ["id.example.org"]}
        )
        bob = await strict.register("bob")
        room = await bob.create_room()
        good = self.address()
        for body, errcode in (
            (good, "M_SERVER_NOT_TRUSTED"),
            ({**good, "id_server": "https://x/"}, "M_INVALID_PARAM"),
            ({**good, "id_server": "id.example.org", "address": "carol"}, "M_INVALID_PARAM"),
        ):
            attempt = bob.post(f"/rooms/{quote(room)}/invite", body)
            await self.assert_refused(errcode, attempt, 400)
            await self.assert_refused(errcode, bob.create_room(invite_3pid=[body]), 400)
        for name in good:
            lacking = {key: value for key, value in good.items() if key != name}
            attempt = bob.post(f"/rooms/{quote(room)}/invite", lacking)
            await self.assert_refused("M_BAD_JSON", attempt, 400)

        self.assertEqual(len((await bob.get("/joined_rooms"))["joined_rooms"]), 1)
        self.assertEqual(self.identity.seen, [])


class RedeemingTests(InvitedAddressTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.organisation(outbound_http=OUTBOUND)
        self.carol = await self.there.register("carol")
        self.room = await self.alice.create_room(name="Garden")
        await self.invite(self.room)

    async def test_the_user_who_publishes_the_address_is_invited(self) -> None:
        """Carol gets an account on any server, publishes her address, and finds the invite."""
        await self.bind()

        self.assertEqual(await self.membership(self.carol, self.room), "invite")
        await self.carol.join(self.room)
        member = await self.alice.state(self.room, "m.room.member", self.carol.user_id)
        self.assertEqual(member["membership"], "join")

    async def test_the_invite_shows_its_origin(self) -> None:
        """Members see that Alice invited this user, without Carol's address."""
        await self.bind()

        content = await self.alice.state(self.room, "m.room.member", self.carol.user_id)

        invite = content["third_party_invite"]
        self.assertEqual(invite["display_name"], "c...@e...")
        self.assertEqual(invite["signed"]["mxid"], self.carol.user_id)
        self.assertNotIn(ADDRESS, str(content))

    async def test_a_server_in_the_room_redeems_the_invite_itself(self) -> None:
        """Even while the inviter's server is unavailable."""
        bob = await self.there.register("bob")
        await self.alice.invite(self.room, bob)
        await bob.join(self.room)
        await self.here.stop()
        self.here.stop = _nothing  # type: ignore[method-assign]

        await self.bind()

        self.assertEqual(await self.membership(self.carol, self.room), "invite")

    async def test_an_invite_redeemed_by_another_server_reaches_the_inviter(self) -> None:
        """The invite is the inviter's, but another server sent it."""
        bob = await self.there.register("bob")
        await self.alice.invite(self.room, bob)
        await bob.join(self.room)

        await self.bind()

        member = await eventually(
            lambda: self.alice.state(self.room, "m.room.member", self.carol.user_id),
            "the invite of Carol",
        )
        self.assertEqual(member["membership"], "invite")

    async def test_an_invite_within_one_server(self) -> None:
        """Carol makes an account where Alice is."""
        carol = await self.here.register("carol")

        await self.bind(carol)

        self.assertEqual(await self.membership(carol, self.room), "invite")

    async def test_a_repeated_notification_changes_nothing(self) -> None:
        """Identity servers retry, also for users who have joined by now."""
        await self.bind()
        await self.carol.join(self.room)

        await self.bind()

        self.assertEqual(await self.membership(self.carol, self.room), "join")

    async def test_a_proof_may_come_with_the_join(self) -> None:
        """A client that got it from the link in the mail."""
        carol = await self.here.register("carol")
        stolen = self.proof(self.carol)
        attempt = carol.join(self.room, third_party_signed=stolen)
        await self.assert_refused("M_FORBIDDEN", attempt, 403)

        await carol.join(self.room, third_party_signed=self.proof(carol))
        await self.carol.join(self.room, third_party_signed=stolen)

        self.assertEqual(await self.membership(carol, self.room), "join")
        self.assertEqual(await self.membership(self.carol, self.room), "join")

    async def test_a_rescinded_invite_is_void(self) -> None:
        """Alice changed her mind before Carol published her address."""
        await self.alice.set_state(self.room, INVITE, {}, "token0")

        await self.assert_refused("M_FORBIDDEN", self.bind(), 403)

        self.assertIsNone(await self.membership(self.carol, self.room))

    async def test_a_revoked_key_is_void(self) -> None:
        """A thief of the key gets into no room."""
        self.identity.are_keys_valid = False
        await self.assert_refused("M_FORBIDDEN", self.bind(), 403)
        self.assertIsNone(await self.membership(self.carol, self.room))

    async def test_without_an_answer_about_the_key_the_sender_retries(self) -> None:
        """A short outage of an identity server loses no invite."""
        path = f"{API}/pubkey/isvalid"
        good = self.identity.answers[path]
        for answer in (error(500, "M_UNKNOWN"), {"valid": "yes"}, []):
            self.identity.answers[path] = answer
            await self.assert_refused("M_UNKNOWN", self.bind(), 400)
            self.assertIsNone(await self.membership(self.carol, self.room))

        self.identity.answers[path] = good
        await self.bind()
        self.assertEqual(await self.membership(self.carol, self.room), "invite")

    async def test_each_invite_is_processed_separately(self) -> None:
        """An invalid one, or one of an unavailable server, does not block the others."""
        body = self.identity.notification("email", ADDRESS, self.carol.user_id)
        (good,) = body["invites"]
        bad = {**good, "signed": {**good["signed"], "signatures": {}}}
        gone = {**good, "room_id": "!gone:x", "sender": "@x:localhost:1"}

        await self.on_bind({**body, "invites": [bad, good]})
        self.assertEqual(await self.membership(self.carol, self.room), "invite")
        await self.assert_refused("M_UNKNOWN", self.on_bind({**body, "invites": [good, gone]}), 502)

    async def test_an_invalid_proof_invites_no_user(self) -> None:
        """Neither a forged one, nor that of another user, nor one for another invite."""
        good = self.identity.signed("token0", self.carol.user_id)
        other = await self.there.register("other")
        changed = {**good, "mxid": other.user_id}
        for user, signed in (
            (self.carol, {**good, "signatures": {}}),
            (self.carol, {**good, "more": 1}),
            (self.carol, {**good, "signatures": {self.identity.name: {"ed25519:peer": "AA"}}}),
            (self.carol, {**good, "token": ["token0"]}),
            (self.carol, {**good, "token": 1.5}),
            (self.carol, self.identity.signed("token1", self.carol.user_id)),
            (other, changed),
            (other, good),
        ):
            invite = {"room_id": self.room, "sender": self.alice.user_id, "signed": signed}
            body = {"medium": "email", "address": ADDRESS, "mxid": user.user_id}
            with contextlib.suppress(Refused):  # what is for another user is skipped
                await self.on_bind({**body, "invites": [invite]})
            self.assertIsNone(await self.membership(user, self.room))

    async def test_only_the_users_own_server_may_request_it(self) -> None:
        """Another one cannot have its users, or strangers, invited."""
        peer = await self.fake()
        signed = self.identity.signed("token0", self.carol.user_id)
        event = {
            "type": "m.room.member",
            "room_id": self.room,
            "sender": self.alice.user_id,
            "state_key": self.carol.user_id,
            "content": {
                "membership": "invite",
                "third_party_invite": {"display_name": "c", "signed": signed},
            },
        }
        path = "/_matrix/federation/v1/exchange_third_party_invite/"
        for room, body, status in (
            (self.room, event, 403),
            (self.room, {**event, "state_key": peer.user("mallory")}, 403),
            (self.room, {**event, "room_id": "!other:x"}, 400),
            (self.room, {**event, "type": "m.room.name"}, 400),
            (self.room, {**event, "state_key": "carol"}, 400),
            (self.room, {**event, "content": {"membership": "join"}}, 400),
            ("!unknown:x", {**event, "room_id": "!unknown:x"}, 403),
        ):
            answer = await peer.ask(self.here.name, "PUT", path + quote(room), body)
            self.assertEqual(answer[0], status, answer)

    async def test_malformed_notifications_are_refused(self) -> None:
        """Any client may send this; it has an effect only for local users."""
        good = self.identity.notification("email", ADDRESS, self.carol.user_id)
        for body in (
            {**good, "mxid": self.alice.user_id},
            {**good, "mxid": f"@nobody:{self.there.name}"},
            {**good, "mxid": "carol"},
            {**good, "invites": [5]},
            {},
        ):
            refusal = await self.assertFailure(ensureDeferred(self.on_bind(body)), Refused)
            self.assertEqual(refusal.status, 400)
        junk = [{"room_id": "x", "sender": "y", "signed": {"mxid": self.carol.user_id}}] * 200
        await self.on_bind({**good, "invites": junk})

    def proof(self, actor: Actor) -> dict[str, Any]:
        """The proof that a client presents when joining."""
        return self.identity.signed("token0", actor.user_id, sender=self.alice.user_id)

    async def bind(self, carol: Actor | None = None) -> None:
        """Carol publishes her address, and the identity server notifies her homeserver."""
        carol = carol or self.carol
        server = self.here if carol is not self.carol else self.there
        body = self.identity.notification("email", ADDRESS, carol.user_id)
        await server.anybody.request("PUT", ON_BIND, body)

    async def on_bind(self, body: Any) -> None:
        """Send any notification to Carol's homeserver."""
        await self.there.anybody.request("PUT", ON_BIND, body)


async def _nothing() -> None:
    """A stop method for a server that was stopped already."""
