"""The profiles of the members of a room: of this server and of others, few and many."""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.signing.signatures import SigningKey
from tests.support.postgres import DatabaseTestCase
from tests.support.room_graph import RoomGraph
from tests.sync.sync_server import SyncServer

ZOE = "@zoe:other.example"
FIELD = "m.status"
WANTED = {"profile_fields": {"ids": [FIELD]}}
MANY = 20


class ProfilesOfMembersTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.server = await SyncServer.start(self.db)
        self.alice = await self.server.user("alice")
        self.room = await self.server.create_room(self.alice)
        self.since: str | None = None

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def restart(self) -> None:
        await self.server.stop()
        self.server = await SyncServer.start(self.db)

    async def set_status(self, user: Requester, value: Any) -> None:
        encoded = None if value is None else msgspec.json.encode(value)
        await self.server.accounts.local_profiles.write(user.user_id, FIELD, encoded)

    async def seen(self, **wanted: Any) -> Any:
        """The profiles in Alice's next sync."""
        response = await self.server.update(self.alice, self.since, WANTED | wanted)
        self.since = response["next_batch"]
        return {
            user_id: each["profile_updates"] for user_id, each in response.get("users", {}).items()
        }

    async def test_only_the_leave_of_remote_users_is_said(self) -> None:
        """Nobody says when their profiles change; clients have what member events say."""
        first = await self.seen()
        await self.server.remote.member(self.room, ZOE, "join")
        joined = await self.seen()
        await self.server.remote.member(self.room, ZOE, "leave")
        left = await self.seen()

        self.assertEqual((first, joined, left), ({}, {}, {ZOE: None}))

    async def test_many_profiles_are_read_together(self) -> None:
        """Right after a start none of them is in memory, nor are changes from before it."""
        users = [await self.server.user(f"user{number}") for number in range(MANY)]
        for number, user in enumerate(users):
            await self.server.rooms.memberships.join(user, self.room)
            await self.set_status(user, number)
        expected = {user.user_id: {FIELD: number} for number, user in enumerate(users)}
        await self.restart()
        whole = await self.seen()
        for user in users:
            await self.set_status(user, None if user is users[0] else "new")
        await self.restart()
        changed = await self.seen()

        self.assertEqual(whole, expected)
        news = {each: {FIELD: "new"} for each in expected} | {users[0].user_id: {FIELD: None}}
        self.assertEqual(changed, news)

    async def test_many_changes_are_of_those_who_share_a_room(self) -> None:
        """Strangers on the same server stay strangers, however many change something."""
        users = [await self.server.user(f"user{number}") for number in range(2 * MANY)]
        for user in users[:MANY]:
            await self.server.rooms.memberships.join(user, self.room)
        await self.seen()
        for user in users:
            await self.set_status(user, 1)
        expected = {user.user_id: {FIELD: 1} for user in users[:MANY]}
        since = self.since

        self.assertEqual(await self.seen(), expected)
        self.since = since
        await self.restart()
        self.assertEqual(await self.seen(), expected)

    async def test_what_a_client_filters_out_is_no_profile_of_a_sender(self) -> None:
        """Events that a user does not see bring no profile with lazy loading."""
        bob = await self.server.user("bob")
        await self.server.rooms.memberships.join(bob, self.room)
        await self.set_status(bob, 1)
        state = {"lazy_load_members": True, "types": ["m.room.create"]}
        room = {"state": state, "timeline": {"not_senders": [bob.user_id]}}
        await self.server.rooms.sending.set_state(
            self.alice, self.room, "m.room.name", "", {"name": "Lake"}
        )

        self.assertEqual(await self.seen(room=room), {})

    async def test_who_was_removed_and_invited_again_follows_nobody(self) -> None:
        """Until they join again; the invite alone brings nothing."""
        bob = await self.server.user("bob")
        room = await self.server.create_room(bob)
        members = self.server.rooms.memberships
        await self.set_status(bob, 1)
        await members.join(self.alice, room)
        await self.seen()
        await members.kick(bob, room, self.alice.user_id)
        await members.invite(bob, room, self.alice.user_id)
        invited = await self.seen()
        await members.join(self.alice, room)
        joined = await self.seen()

        self.assertEqual(invited, {bob.user_id: None})
        self.assertEqual(joined, {bob.user_id: {FIELD: 1}})

    async def test_invite_alone_brings_nothing(self) -> None:
        """A user who is only invited shares no room."""
        bob = await self.server.user("bob")
        room = await self.server.create_room(bob)
        await self.set_status(bob, 1)
        await self.seen()
        await self.server.rooms.memberships.invite(bob, room, self.alice.user_id)
        invited = await self.seen()
        await self.server.rooms.memberships.leave(self.alice, room)

        self.assertEqual((invited, await self.seen()), ({}, {}))

    async def test_invite_to_a_room_of_other_servers_brings_nothing(self) -> None:
        """This server knows nobody in it."""
        await self.seen()
        key = SigningKey.from_seed("1", bytes(32))
        graph = RoomGraph.create("11", "@eve:far.example", "far.example", key)
        invite = graph.member(self.alice.user_id, "invite", sender="@eve:far.example")
        await self.server.core.out_of_room.invited(invite, "far.example", [])
        since = self.since
        invited = await self.seen()
        self.since = since
        await self.restart()

        self.assertEqual((invited, await self.seen()), ({}, {}))

    async def test_two_rooms_with_the_same_user_bring_the_profile_once(self) -> None:
        """The user may leave one of them without any news."""
        other = await self.server.create_room(self.alice)
        bob = await self.server.user("bob")
        await self.set_status(bob, 1)
        await self.seen()
        for room in (self.room, other):
            await self.server.rooms.memberships.join(bob, room)
        joined = await self.seen()
        await self.server.rooms.memberships.leave(bob, other)
        shared = await self.seen()
        await self.server.rooms.memberships.leave(bob, self.room)
        left = await self.seen()

        self.assertEqual(joined, {bob.user_id: {FIELD: 1}})
        self.assertEqual((shared, left), ({}, {bob.user_id: None}))
