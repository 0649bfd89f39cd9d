"""Unread counts of many rooms, which are read together."""

from unittest.mock import patch

from homeserver.accounts.sessions.requester import Requester
from homeserver.push import unread_counts
from homeserver.rooms.room.room import SHORT_TIMELINE, Room
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer

ROOMS = 6


class CountsTogetherTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.server = await SyncServer.start(self.db)
        self.alice = await self.server.user("alice")
        self.bob = await self.server.user("bob")

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def say(self, room_id: str, number: int, *mentioned: Requester) -> None:
        named = {"m.mentions": {"user_ids": [user.user_id for user in mentioned]}}
        content = {"msgtype": "m.text", "body": "hello", **named}
        await self.server.rooms.sending.send_message(
            self.alice, room_id, "m.room.message", content, f"{room_id}{number}"
        )

    async def make_rooms(self) -> list[Room]:
        """Rooms with more and more messages, the first of which mentions Bob, after a restart."""
        created = [await self.server.create_room(self.alice) for _ in range(ROOMS)]
        for extra, room_id in enumerate(created):
            await self.server.rooms.memberships.join(self.bob, room_id)
            for number in range(2 * SHORT_TIMELINE + extra):
                await self.say(room_id, number, *[self.bob][number:])
        await self.server.stop()
        self.server = await SyncServer.start(self.db)
        registry, receipts = self.server.core.registry, self.server.sync.receipts
        rooms = [await registry.get(room_id) for room_id in created]
        await receipts.get_ready([room.room_nid for room in rooms])
        members = {room: [room.member_events[self.bob.user_id]] for room in rooms}
        await registry.get_events_ready(members)
        return rooms

    async def test_many_rooms_cost_few_statements(self) -> None:
        """After a restart, an account in thousands of rooms does not wait for each of them."""
        rooms = await self.make_rooms()
        counts, runs = self.server.sync.push.unread_counts, self.db.runs

        with patch.object(unread_counts, "MAX_READ", 40):
            await counts.get_ready(rooms, self.bob.user_id)

        assert self.db.runs - runs < 2 * ROOMS
        runs = self.db.runs
        found = [await counts.counts(room, self.bob.user_id) for room in rooms]
        messages = [2 * SHORT_TIMELINE + extra for extra in range(ROOMS)]
        assert [each.notification for each in found] == messages
        assert [each.highlight for each in found] == [1] * ROOMS
        assert self.db.runs == runs
