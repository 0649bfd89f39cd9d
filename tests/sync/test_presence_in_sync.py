"""Presence in sync: a user who joins a room and its members see each other's presence.

Spec: https://spec.matrix.org/v1.19/client-server-api/#presence
"""

from typing import Any

from homeserver.accounts.sessions.requester import Requester
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer

ZOE = "@zoe:other.example"


class PresenceInSyncTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.server = await SyncServer.start(self.db)
        self.alice = await self.server.user("alice")
        self.bob = await self.server.user("bob")
        self.room_id = await self.server.create_room(self.alice)
        await self.server.create_room(self.bob)
        self.positions = {user: await self.end(user) for user in (self.alice, self.bob)}

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def end(self, user: Requester) -> str:
        return str((await self.server.update(user))["next_batch"])

    async def go_online(self, user: Requester) -> None:
        await self.server.sync.tracker.sync_began(user.user_id, user.device_id, None)
        await self.server.log.flush()

    async def seen_by(self, user: Requester) -> dict[str, Any]:
        """The presence states in the next sync of a user, by user id."""
        response = await self.server.update(user, self.positions[user])
        self.positions[user] = response["next_batch"]
        events = response.get("presence", {}).get("events", [])
        return {event["sender"]: event["content"]["presence"] for event in events}

    async def test_newcomer_sees_the_members_presence_with_the_join(self) -> None:
        """A client that syncs right away need not wait for presence changes."""
        await self.go_online(self.alice)
        await self.server.rooms.memberships.join(self.bob, self.room_id)

        assert (await self.seen_by(self.bob))[self.alice.user_id] == "online"

    async def test_online_newcomer_sees_the_members_presence_with_the_join(self) -> None:
        """The same where the newcomer's own presence is published right after."""
        await self.go_online(self.alice)
        await self.go_online(self.bob)
        await self.seen_by(self.bob)
        await self.server.rooms.memberships.join(self.bob, self.room_id)

        assert (await self.seen_by(self.bob))[self.alice.user_id] == "online"
        await self.server.log.flush()
        assert (await self.seen_by(self.alice))[self.bob.user_id] == "online"

    async def test_newcomer_of_another_server_is_seen(self) -> None:
        """The remote user was online before, but shared no room with the local one."""
        other_room = await self.server.create_room(self.bob)
        await self.server.remote.member(other_room, ZOE, "join")
        await self.server.sync.remote_presence.receive(ZOE, "online", None, None)
        assert ZOE not in await self.seen_by(self.alice)

        await self.server.remote.member(self.room_id, ZOE, "join")
        await self.server.log.flush()

        assert (await self.seen_by(self.alice))[ZOE] == "online"

    async def test_change_of_name_sends_no_presence(self) -> None:
        """A member event that is not a join does not repeat presence that the client knows."""
        await self.server.rooms.memberships.join(self.bob, self.room_id)
        await self.go_online(self.alice)
        await self.server.log.flush()
        await self.seen_by(self.bob)
        content = {"membership": "join", "displayname": "Bob"}
        send = self.server.rooms.sending.set_state
        await send(self.bob, self.room_id, "m.room.member", self.bob.user_id, content)

        assert await self.seen_by(self.bob) == {}
