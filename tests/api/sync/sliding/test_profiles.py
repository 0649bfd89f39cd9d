"""The extension for profiles.

Spec: MSC4262
"""

from typing import Any

from twisted.internet.defer import Deferred

from tests.api.sync.sliding.sliding_client import (
    ACCEPTED_PATH,
    SlidingClient,
    SlidingTestCase,
    window,
)
from tests.support.actors import Actor

STATUS, CALL, LANGUAGE = "m.status", "m.call", "org.example.language"
SWIMMING = {"text": "Swimming in the Great Lakes!", "emoji": "🏊️"}
UNSTABLE = "org.matrix.msc4262.profiles"
ALL = [["m.room.member", "*"]]
LAZY = [["m.room.member", "$LAZY"]]


async def set_field(actor: Actor, field: str, value: Any) -> None:
    await actor.put(f"/profile/{actor.user_id}/{field}", {field: value})


async def remove_field(actor: Actor, field: str) -> None:
    await actor.delete(f"/profile/{actor.user_id}/{field}")


class ProfilesTestCase(SlidingTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.room = await self.alice.create_room(public=True)
        await self.bob.join(self.room)

    def client(
        self, fields: list[str] | None = None, *, required_state: Any = (), **body: Any
    ) -> SlidingClient:
        """A connection of Alice that asks for fields of profiles, or for all of them."""
        config = {"enabled": True} | ({} if fields is None else {"fields": fields})
        lists = {"all": window(timeline_limit=1, required_state=required_state)}
        return SlidingClient(
            self.alice, **{"lists": lists, "extensions": {"profiles": config}} | body
        )

    async def users(self, client: SlidingClient, **options: Any) -> Any:
        """The profiles in the next response."""
        response = await client.sync(**options)
        return response["extensions"].get("profiles", {"users": {}})["users"]


class ProfilesTests(ProfilesTestCase):
    async def test_example_of_the_proposal(self) -> None:
        """Fields that were set, one with the value null, one that was removed."""
        await set_field(self.bob, "com.example.other_field", 1)
        client = self.client()
        first = await self.users(client)
        await set_field(self.bob, "displayname", "Bob")
        await set_field(self.bob, "avatar_url", "mxc://example.com/abc123")
        await set_field(self.bob, LANGUAGE, "en-GB")
        await set_field(self.bob, "org.example.another_field", None)
        await remove_field(self.bob, "com.example.other_field")

        second = await self.users(client)
        await self.bob.leave(self.room)
        third = await self.users(client)

        bob = self.bob.user_id
        self.assertEqual(
            first,
            {
                self.alice.user_id: {"updated": {"displayname": "alice"}},
                bob: {"updated": {"displayname": "bob", "com.example.other_field": 1}},
            },
        )
        updated = {
            "displayname": "Bob",
            "avatar_url": "mxc://example.com/abc123",
            LANGUAGE: "en-GB",
            "org.example.another_field": None,
        }
        self.assertEqual(
            second, {bob: {"updated": updated, "removed": ["com.example.other_field"]}}
        )
        self.assertEqual(third, {bob: None})

    async def test_only_the_fields_that_are_wanted(self) -> None:
        """A client pays for what it shows."""
        await set_field(self.bob, STATUS, SWIMMING)
        client = self.client([STATUS])
        first = await self.users(client)
        await set_field(self.bob, CALL, {})
        second = await client.sync()
        await remove_field(self.bob, STATUS)
        third = await self.users(client)

        self.assertEqual(first, {self.bob.user_id: {"updated": {STATUS: SWIMMING}}})
        self.assertNotIn("profiles", second["extensions"])
        self.assertEqual(third, {self.bob.user_id: {"removed": [STATUS]}})

    async def test_a_change_ends_the_wait(self) -> None:
        """A status is seen at once, also one that the user set with another device."""
        client = self.client([STATUS])
        await client.sync()
        for actor in (self.bob, self.alice):
            waiting = Deferred.fromCoroutine(self.users(client, timeout_ms=30_000))
            await set_field(actor, STATUS, SWIMMING)
            self.assertEqual(await waiting, {actor.user_id: {"updated": {STATUS: SWIMMING}}})

    async def test_a_response_that_got_lost_is_repeated(self) -> None:
        """What was sent counts when the client returns with the next position."""
        await set_field(self.bob, STATUS, SWIMMING)
        client = self.client([STATUS, CALL])
        first = await client.sync()
        await set_field(self.bob, CALL, {})
        room = await self.bob.create_room(public=True)
        carol = await self.register("carol")
        await carol.join(room)
        await set_field(carol, STATUS, SWIMMING)
        await self.alice.join(room)

        lost = await self.users(client)
        again = await self.users(client, pos=first["pos"])
        after = await self.users(client)

        self.assertEqual(
            lost,
            {
                self.bob.user_id: {"updated": {CALL: {}}},
                carol.user_id: {"updated": {STATUS: SWIMMING}},
            },
        )
        self.assertEqual(again, lost)
        self.assertEqual(after, {})

    async def test_names_of_the_proposal(self) -> None:
        """Deployed clients use the unstable name, and look for the flag."""
        client = self.client(extensions={UNSTABLE: {"enabled": True, "fields": ["displayname"]}})

        extensions = (await client.sync())["extensions"]
        versions = await self.anybody.request("GET", "/_matrix/client/versions")

        self.assertEqual(extensions.keys(), {UNSTABLE})
        self.assertEqual(len(extensions[UNSTABLE]["users"]), 2)
        self.assertTrue(versions["unstable_features"]["org.matrix.msc4262"])

    async def test_accepted_form(self) -> None:
        """The extension is the same in both forms."""
        room = {"timeline_limit": 1, "required_state": {"include": [{"type": "m.room.member"}]}}
        body = {"room_subscriptions": {self.room: room}}
        body["extensions"] = {"profiles": {"enabled": True, "fields": ["displayname"]}}

        response = await self.alice.request("POST", ACCEPTED_PATH, body)

        self.assertEqual(
            response["extensions"]["profiles"]["users"],
            {
                self.alice.user_id: {"updated": {"displayname": "alice"}},
                self.bob.user_id: {"updated": {"displayname": "bob"}},
            },
        )

    async def test_too_many_fields_are_refused(self) -> None:
        """What a connection keeps is bounded."""
        for fields in ([f"m.{number}" for number in range(101)], ["m" * 256]):
            await self.assert_refused("M_INVALID_PARAM", self.client(fields).sync(), 400)


class ScopeTests(ProfilesTestCase):
    async def test_profiles_come_with_the_rooms_of_the_range(self) -> None:
        """Whole profiles are sent when a room comes into the range, and once."""
        carol = await self.register("carol")
        other = await carol.create_room(public=True)
        await self.bob.join(other)
        await self.alice.join(other)
        client = self.client(["displayname"], lists={"all": window(0, 0)})

        first = await self.users(client)
        second = await self.users(client, lists={"all": window(0, 1)})
        third = await self.users(client, lists={"all": window(0, 0)})
        fourth = await self.users(client, lists={"all": window(0, 1)})

        self.assertEqual(first.keys(), {each.user_id for each in (self.alice, self.bob, carol)})
        self.assertEqual((second, third, fourth), ({}, {}, {}))

    async def test_changes_outside_of_the_range_are_sent(self) -> None:
        """Or a profile that the client has would be stale when the room comes back."""
        client = self.client([STATUS], lists={"none": window(5, 6)})
        first = await self.users(client)

        await set_field(self.bob, STATUS, SWIMMING)

        self.assertEqual(first, {})
        self.assertEqual(
            await self.users(client), {self.bob.user_id: {"updated": {STATUS: SWIMMING}}}
        )

    async def test_extension_is_for_its_lists_and_rooms(self) -> None:
        """`lists` and `rooms` say which rooms bring whole profiles."""
        extension = {"enabled": True, "fields": ["displayname"], "lists": [], "rooms": []}
        client = self.client(extensions={"profiles": extension})
        first = await self.users(client)
        extensions = {"profiles": extension | {"rooms": [self.room]}}
        subscriptions = {self.room: {"timeline_limit": 1, "required_state": ALL}}

        second = await self.users(
            client, extensions=extensions, room_subscriptions=subscriptions, lists={}
        )

        self.assertEqual(first, {self.alice.user_id: {"updated": {"displayname": "alice"}}})
        self.assertEqual(second, {self.bob.user_id: {"updated": {"displayname": "bob"}}})

    async def test_a_new_member_brings_their_profile(self) -> None:
        """Somebody who joins is shown with their status."""
        carol = await self.register("carol")
        await set_field(carol, STATUS, SWIMMING)
        client = self.client([STATUS])
        await client.sync()

        await carol.join(self.room)

        self.assertEqual(await self.users(client), {carol.user_id: {"updated": {STATUS: SWIMMING}}})

    async def test_members_who_join_outside_of_the_range_come_with_it(self) -> None:
        """What a room has missed is made up for."""
        carol = await self.register("carol")
        await set_field(carol, STATUS, SWIMMING)
        client = self.client([STATUS])
        await client.sync()
        await client.sync(lists={"all": window(5, 6)})
        await carol.join(self.room)
        away = await self.users(client)

        back = await self.users(client, lists={"all": window()})

        self.assertEqual(away, {})
        self.assertEqual(back, {carol.user_id: {"updated": {STATUS: SWIMMING}}})

    async def test_another_field_is_sent_of_all_users_in_scope(self) -> None:
        """A client that learns to show a field gets it without beginning again."""
        await set_field(self.bob, STATUS, SWIMMING)
        for required_state in (ALL, LAZY):
            client = self.client(["displayname"], required_state=required_state)
            await self.bob.say(self.room, "hello")
            await client.sync()
            fields = {"profiles": {"enabled": True, "fields": ["displayname", STATUS]}}

            more = await self.users(client, extensions=fields)
            again = await self.users(client)

            self.assertEqual(more[self.bob.user_id]["updated"][STATUS], SWIMMING)
            self.assertEqual(again, {})

    async def test_extension_can_be_enabled_later(self) -> None:
        """A client that knows the rooms already gets the profiles of their members."""
        for required_state in (ALL, LAZY):
            client = self.client(required_state=required_state, extensions={})
            await self.bob.say(self.room, "hello")
            await client.sync()

            users = await self.users(client, extensions={"profiles": {"enabled": True}})

            self.assertEqual(users.keys(), {self.alice.user_id, self.bob.user_id})


class LazyProfilesTests(ProfilesTestCase):
    async def test_profiles_come_with_what_users_send(self) -> None:
        """A room of thousands does not cost thousands of profiles, and none is sent twice."""
        await self.alice.set_state(self.room, "m.room.name", {"name": "Lake"})
        client = self.client(["displayname"], required_state=LAZY)
        first = await self.users(client)
        seen = []
        for _ in range(2):
            await self.bob.say(self.room, "hello")
            seen.append(await self.users(client))

        self.assertEqual(first, {self.alice.user_id: {"updated": {"displayname": "alice"}}})
        self.assertEqual(seen, [{self.bob.user_id: {"updated": {"displayname": "bob"}}}, {}])

    async def test_one_room_without_lazy_loading_brings_all_of_its_members(self) -> None:
        """Also those of whom a lazily loaded room has shown nothing."""
        await self.alice.set_state(self.room, "m.room.name", {"name": "Lake"})
        lists = {
            "lazy": window(timeline_limit=1, required_state=LAZY),
            "whole": window(timeline_limit=1, required_state=ALL),
        }

        users = await self.users(self.client(["displayname"], lists=lists))

        self.assertEqual(users.keys(), {self.alice.user_id, self.bob.user_id})

    async def test_who_returns_is_sent_again(self) -> None:
        """The client has dropped the profile meanwhile."""
        await self.bob.say(self.room, "hello")
        client = self.client(["displayname"], required_state=LAZY)
        seen = [(await self.users(client))[self.bob.user_id]]
        for change in (self.bob.leave, self.bob.join):
            await change(self.room)
            seen.append((await self.users(client))[self.bob.user_id])

        profile = {"updated": {"displayname": "bob"}}
        self.assertEqual(seen, [profile, None, profile])

    async def test_heroes_are_shown(self) -> None:
        """A chat without a name is shown by its members."""
        await self.alice.say(self.room, "hello")

        users = await self.users(self.client(["displayname"], required_state=LAZY))

        self.assertEqual(users.keys(), {self.alice.user_id, self.bob.user_id})


class RestartTests(ProfilesTestCase):
    async def test_rooms_out_of_range_bring_other_fields_when_they_come_back(self) -> None:
        """Also where the server does not remember any more which users the client has."""
        await set_field(self.bob, STATUS, SWIMMING)
        client = self.client(["displayname"], required_state=ALL)
        lists = client.body["lists"]
        await client.sync()
        await client.sync(lists={})
        await self.restart_server(self.alice, self.bob)
        extensions = {"profiles": {"enabled": True, "fields": ["displayname", STATUS]}}

        away = await self.users(client, extensions=extensions)
        back = await self.users(client, lists=lists)

        self.assertEqual(away, {self.alice.user_id: {"updated": {"displayname": "alice"}}})
        self.assertEqual(
            back, {self.bob.user_id: {"updated": {"displayname": "bob", STATUS: SWIMMING}}}
        )

    async def test_connection_goes_on_after_a_restart(self) -> None:
        """Changes while the server was down, or right before, come; nothing else comes twice."""
        await set_field(self.bob, CALL, {})
        client = self.client([STATUS, CALL], required_state=ALL)
        await client.sync()
        await set_field(self.bob, STATUS, SWIMMING)
        await remove_field(self.bob, CALL)
        await self.restart_server(self.alice, self.bob)

        changed = await self.users(client)
        await self.bob.say(self.room, "hello")
        after = await self.users(client)
        await self.bob.leave(self.room)
        gone = await self.users(client)

        self.assertEqual(
            changed, {self.bob.user_id: {"updated": {STATUS: SWIMMING}, "removed": [CALL]}}
        )
        self.assertEqual(after, {})
        self.assertEqual(gone, {self.bob.user_id: None})
