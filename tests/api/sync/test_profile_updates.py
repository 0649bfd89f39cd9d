"""Profiles in `/sync` and over the WebSocket.

Spec: MSC4429
"""

import base64
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
from autobahn.twisted.websocket import WebSocketClientFactory
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint

from tests.api.sync.stream_test_case import Client
from tests.support.actors import Actor
from tests.support.server import ServerTestCase

STATUS, CALL = "m.status", "m.call"
SWIMMING = {"text": "Swimming in the Great Lakes!", "emoji": "🏊️"}
FIELDS = {"profile_fields": {"ids": [STATUS, CALL, "displayname"]}}
LAZY = FIELDS | {"room": {"state": {"lazy_load_members": True}}}


async def set_field(actor: Actor, field: str, value: Any) -> None:
    await actor.put(f"/profile/{actor.user_id}/{field}", {field: value})


async def remove_field(actor: Actor, field: str) -> None:
    await actor.delete(f"/profile/{actor.user_id}/{field}")


class ProfileUpdatesTestCase(ServerTestCase):
    """Alice and Bob share a room; Carol is alone."""

    # Presence would end waits, too.
    settings = {"presence": {"enabled": False}}  # noqa: RUF012  # replaced, never changed

    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.carol = await self.register("carol")
        self.room = await self.alice.create_room(public=True)
        await self.bob.join(self.room)
        self.tokens: dict[str, str] = {}

    async def sync(
        self, actor: Actor, *, timeout_ms: int = 0, wanted: Any = FIELDS, **query: Any
    ) -> Any:
        """The profiles in the next sync of an actor, by user id."""
        encoded = msgspec.json.encode(wanted).decode()
        since = self.tokens.get(actor.token)
        response = await actor.sync(since, timeout_ms=timeout_ms, filter=encoded, **query)
        self.tokens[actor.token] = response["next_batch"]
        return {
            user_id: each["profile_updates"] for user_id, each in response.get("users", {}).items()
        }


class ProfileUpdatesTests(ProfileUpdatesTestCase):
    async def test_example_of_the_proposal(self) -> None:
        """A field that was set, one that was removed, and one that is not wanted."""
        await set_field(self.bob, CALL, {"call_joined_ts": 1770140640})
        await self.sync(self.alice)

        await set_field(self.bob, STATUS, {"text": "On my way"})
        await set_field(self.bob, STATUS, SWIMMING)
        await set_field(self.bob, "m.something_else", {"secret": True})
        await remove_field(self.bob, CALL)

        updates = await self.sync(self.alice)
        self.assertEqual(updates, {self.bob.user_id: {STATUS: SWIMMING, CALL: None}})
        self.assertEqual(await self.sync(self.alice), {})

    async def test_initial_sync_has_what_is_set_now(self) -> None:
        """A new client shows the status of everybody whom its user meets."""
        await set_field(self.bob, STATUS, SWIMMING)
        await set_field(self.carol, STATUS, {"text": "Alone"})

        self.assertEqual(
            await self.sync(self.alice),
            {
                self.alice.user_id: {"displayname": "alice"},
                self.bob.user_id: {"displayname": "bob", STATUS: SWIMMING},
            },
        )

    async def test_nothing_is_sent_to_a_client_that_did_not_ask(self) -> None:
        """Old clients receive no more than before, and no empty response ends their wait."""
        first = await self.alice.sync()
        await set_field(self.bob, STATUS, SWIMMING)

        second = await self.alice.sync(first["next_batch"])

        self.assertNotIn("users", first)
        self.assertNotIn("users", second)

    async def test_names_of_the_proposal(self) -> None:
        """Deployed clients use the unstable names, and look for the flag."""
        await set_field(self.bob, STATUS, SWIMMING)
        ids = {"ids": [STATUS]}
        wanted = msgspec.json.encode({"org.matrix.msc4429.profile_fields": ids}).decode()

        response = await self.alice.sync(filter=wanted)
        versions = await self.anybody.request("GET", "/_matrix/client/versions")

        self.assertNotIn("users", response)
        self.assertEqual(
            response["org.matrix.msc4429.users"],
            {self.bob.user_id: {"profile_updates": {STATUS: SWIMMING}}},
        )
        self.assertTrue(versions["unstable_features"]["org.matrix.msc4429"])

    async def test_a_stored_filter_works_like_one_in_the_request(self) -> None:
        """Clients upload their filter once."""
        path = f"/user/{self.alice.user_id}/filter"
        stored = await self.alice.post(path, FIELDS)

        response = await self.alice.sync(filter=stored["filter_id"])

        self.assertIn(self.bob.user_id, response["users"])

    async def test_a_change_ends_the_wait(self) -> None:
        """A status is seen as soon as it is set, by others and by one's other devices."""
        phone = await self.log_in(self.bob)
        waits = []
        for actor in (self.alice, phone):
            await self.sync(actor)
            waits.append(Deferred.fromCoroutine(self.sync(actor, timeout_ms=30_000)))

        await set_field(self.bob, STATUS, SWIMMING)

        for wait in waits:
            self.assertEqual(await wait, {self.bob.user_id: {STATUS: SWIMMING}})

    async def test_who_shares_no_room_receives_nothing(self) -> None:
        """Not even of strangers on the same server."""
        await self.sync(self.carol)

        await set_field(self.bob, STATUS, SWIMMING)

        self.assertEqual(await self.sync(self.carol), {})

    async def test_new_members_and_old_ones_are_sent_each_other(self) -> None:
        """No request is needed for each new user."""
        await set_field(self.carol, STATUS, SWIMMING)
        await self.sync(self.alice)
        await self.sync(self.carol)
        await self.carol.join(self.room)

        to_alice, to_carol = await self.sync(self.alice), await self.sync(self.carol)

        self.assertEqual(to_alice, {self.carol.user_id: {"displayname": "carol", STATUS: SWIMMING}})
        self.assertEqual(
            to_carol,
            {
                self.alice.user_id: {"displayname": "alice"},
                self.bob.user_id: {"displayname": "bob"},
            },
        )

    async def test_who_has_left_is_not_followed_any_more(self) -> None:
        """The client may drop the profile, and is sent the current one if they meet again."""
        other = await self.alice.create_room(public=True)
        await self.bob.join(other)
        await self.sync(self.alice)

        await self.bob.leave(other)
        still_shared = await self.sync(self.alice)
        await self.bob.leave(self.room)
        gone = await self.sync(self.alice)
        await set_field(self.bob, STATUS, SWIMMING)
        unseen = await self.sync(self.alice)
        await self.bob.join(self.room)
        back = await self.sync(self.alice)

        self.assertEqual(still_shared, {})
        self.assertEqual(gone, {self.bob.user_id: None})
        self.assertEqual(unseen, {})
        self.assertEqual(back, {self.bob.user_id: {"displayname": "bob", STATUS: SWIMMING}})

    async def test_user_who_leaves_follows_nobody(self) -> None:
        """The one who leaves is sent all whom they do not meet any more."""
        await self.sync(self.bob)

        await self.bob.leave(self.room)

        self.assertEqual(await self.sync(self.bob), {self.alice.user_id: None})

    async def test_changes_during_a_restart_are_not_lost(self) -> None:
        """A token from before is as good as before; what is not in memory is in the database."""
        await set_field(self.bob, CALL, {})
        await self.sync(self.alice)
        await set_field(self.bob, STATUS, SWIMMING)
        await remove_field(self.bob, CALL)
        await set_field(self.carol, STATUS, SWIMMING)
        await self.restart_server(self.alice, self.bob)

        updates = await self.sync(self.alice)
        await set_field(self.alice, STATUS, SWIMMING)
        own = await self.sync(self.alice)

        self.assertEqual(updates, {self.bob.user_id: {STATUS: SWIMMING, CALL: None}})
        self.assertEqual(own, {self.alice.user_id: {STATUS: SWIMMING}})

    async def test_full_state_has_all_profiles_and_what_was_removed(self) -> None:
        """A client that repairs itself misses nothing."""
        await set_field(self.bob, STATUS, SWIMMING)
        await self.sync(self.alice)
        await remove_field(self.bob, STATUS)

        updates = await self.sync(self.alice, full_state="true")

        self.assertEqual(updates[self.bob.user_id], {"displayname": "bob", STATUS: None})
        self.assertEqual(updates[self.alice.user_id], {"displayname": "alice"})

    async def test_deactivated_user_disappears(self) -> None:
        """Nothing of the profile of somebody who has gone stays with others."""
        await set_field(self.bob, STATUS, SWIMMING)
        await self.sync(self.alice)
        identifier = {"type": "m.id.user", "user": self.bob.user_id}
        auth = {
            "type": "m.login.password",
            "identifier": identifier,
            "password": "the password of bob",
        }
        await self.bob.post("/account/deactivate", {"auth": auth, "erase": True})

        seen: Any = {}
        while seen.get(self.bob.user_id, "") is not None:
            seen |= await self.sync(self.alice, timeout_ms=100)

        everything = await self.sync(self.alice, full_state="true")
        self.assertEqual(everything, {self.alice.user_id: {"displayname": "alice"}})

    async def test_too_many_fields_are_refused(self) -> None:
        """A filter is bounded."""
        wanted = {"profile_fields": {"ids": [f"m.{number}" for number in range(101)]}}

        await self.assert_refused("M_BAD_JSON", self.sync(self.alice, wanted=wanted), 400)


class LazyProfilesTests(ProfileUpdatesTestCase):
    async def test_profiles_come_with_what_users_send(self) -> None:
        """A room of thousands does not cost thousands of profiles, and none is sent twice."""
        await self.carol.join(self.room)
        await set_field(self.bob, STATUS, SWIMMING)
        wanted = LAZY | {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}}
        await self.alice.set_state(self.room, "m.room.name", {"name": "Lake"})
        await self.alice.say(self.room, "hello")
        first = await self.sync(self.alice, wanted=wanted)
        await self.bob.say(self.room, "one")
        second = await self.sync(self.alice, wanted=wanted)
        await self.bob.say(self.room, "two")
        third = await self.sync(self.alice, wanted=wanted)

        self.assertEqual(first, {self.alice.user_id: {"displayname": "alice"}})
        self.assertEqual(second, {self.bob.user_id: {"displayname": "bob", STATUS: SWIMMING}})
        self.assertEqual(third, {})

    async def test_a_response_that_got_lost_is_repeated(self) -> None:
        """The profile is sent again to a client that comes back with its older token."""
        await self.alice.set_state(self.room, "m.room.name", {"name": "Lake"})
        wanted = LAZY | {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}}
        await self.sync(self.alice, wanted=wanted)
        before = dict(self.tokens)
        await self.bob.say(self.room, "one")

        lost = await self.sync(self.alice, wanted=wanted)
        self.tokens = before
        again = await self.sync(self.alice, wanted=wanted)

        self.assertEqual(lost, {self.bob.user_id: {"displayname": "bob"}})
        self.assertEqual(again, lost)

    async def test_who_returns_is_sent_again(self) -> None:
        """The client has dropped the profile meanwhile."""
        await self.bob.say(self.room, "hello")
        seen = [(await self.sync(self.alice, wanted=LAZY))[self.bob.user_id]]
        for change in (self.bob.leave, self.bob.join):
            await change(self.room)
            seen.append((await self.sync(self.alice, wanted=LAZY))[self.bob.user_id])

        self.assertEqual(seen, [{"displayname": "bob"}, None, {"displayname": "bob"}])

    async def test_changes_of_users_who_are_not_shown_are_sent(self) -> None:
        """The client may have them from before."""
        await self.sync(self.alice, wanted=LAZY)

        await set_field(self.bob, STATUS, SWIMMING)

        updates = await self.sync(self.alice, wanted=LAZY)
        self.assertEqual(updates, {self.bob.user_id: {STATUS: SWIMMING}})


class ProfilesOverWebSocketTests(ProfileUpdatesTestCase):
    async def open(self, actor: Actor, wanted: Any) -> Client:
        """Open a socket of an actor with a filter."""
        parts = urlsplit(self.url)
        encoded = base64.urlsafe_b64encode(actor.token.encode()).decode().rstrip("=")
        query = f"filter={quote(msgspec.json.encode(wanted).decode())}"
        factory = WebSocketClientFactory(
            f"ws://{parts.netloc}/_matrix/client/v3/stream?{query}",
            protocols=[f"m.token.{encoded}", "m.json"],
            reactor=reactor,
        )
        factory.protocol = Client
        endpoint = TCP4ClientEndpoint(reactor, parts.hostname, parts.port)
        client: Client = await endpoint.connect(factory)
        self.addCleanup(client.dropConnection, abort=True)
        await client.is_open
        return client

    async def test_changes_are_pushed(self) -> None:
        """The same section as in `/sync`, without any request."""
        socket = await self.open(self.alice, FIELDS)
        first = await socket.frame()
        await set_field(self.bob, STATUS, SWIMMING)
        second = await socket.frame()
        await remove_field(self.bob, STATUS)
        third = await socket.frame()
        await self.bob.leave(self.room)
        fourth = await socket.frame()

        bob = self.bob.user_id
        self.assertEqual(first["users"][bob], {"profile_updates": {"displayname": "bob"}})
        self.assertEqual(second["users"], {bob: {"profile_updates": {STATUS: SWIMMING}}})
        self.assertEqual(third["users"], {bob: {"profile_updates": {STATUS: None}}})
        self.assertEqual(fourth["users"], {bob: {"profile_updates": None}})

    async def test_a_socket_whose_filter_has_no_fields_gets_no_frame(self) -> None:
        """Another device of the same user may have asked."""
        tablet = await self.log_in(self.alice)
        await self.sync(tablet)
        socket = await self.open(self.alice, {})
        await socket.frame()

        await set_field(self.bob, STATUS, SWIMMING)
        await self.bob.say(self.room, "hello")

        frame = await socket.frame()
        self.assertNotIn("users", frame)
        self.assertIn("rooms", frame)
