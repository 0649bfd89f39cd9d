"""The items of the reader of device lists are the same from the log and from the database."""

from collections.abc import Sequence
from typing import Any

from federation.sending import device_list_items
from federation.sending.device_list_items import (
    DeviceListItem,
    DeviceListItems,
    MembersKnown,
    OwnListChanged,
    UsersMet,
)
from homeserver.accounts.sessions.requester import Requester
from homeserver.encryption.changes import DeviceListChanged
from homeserver.protocol.event_types import MEMBER
from homeserver.rooms.room.changes import RoomUnPartialStated
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer


class DeviceListItemTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.server = await SyncServer.start(self.db)
        self.alice = await self.server.user("alice")
        self.bob = await self.server.user("bob")
        self.room_id = await self.server.create_room(self.alice)
        self.start = self.server.log.position
        self.items = DeviceListItems(self.db, self.server.core.registry)
        self.selected: list[DeviceListItem] = []
        self.server.log.subscribe(self.select)

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    def select(self, entries: Sequence[Any]) -> None:
        self.selected += self.items.select(entries)

    async def record(self, user: Requester, device_id: str) -> None:
        """Record a change of a local user's devices."""
        lists = self.server.encryption.device_lists
        await lists.prepare(user.user_id)
        lists.record(user.user_id, device_id)
        await self.server.log.written()

    async def join(self, user: Requester) -> None:
        await self.server.rooms.memberships.join(user, self.room_id)

    async def test_the_database_has_the_items_of_the_log(self) -> None:
        """After a crash the same servers receive the same lists as without one."""
        remote = self.server.remote
        first = "@first:two.example"
        await self.record(self.alice, "ONE")
        await self.join(self.bob)
        await remote.member(self.room_id, first, "join")
        await remote.member(self.room_id, "@second:two.example", "join")
        await remote.member(self.room_id, "@first:three.example", "invite")
        named = {"membership": "join", "displayname": "First"}
        await remote.send(self.room_id, MEMBER, first, named, first)
        await self.record(self.bob, "TWO")

        kinds = [type(item) for item in self.selected]
        self.assertEqual(kinds, [OwnListChanged, UsersMet, UsersMet, OwnListChanged])
        met = [item for item in self.selected if isinstance(item, UsersMet)]
        self.assertEqual([item.user_ids for item in met], [(self.bob.user_id,), ()])
        self.assertEqual([item.servers for item in met], [(), ("two.example",)])
        page = await self.items.load(self.start, self.server.log.position)
        self.assertEqual(page.upto, self.server.log.position)
        # Which of two users of a server was the first is not known any more.
        found = [item for item in page.items if item in self.selected]
        self.assertEqual(found, self.selected)
        self.assertEqual(
            {item.servers for item in page.items if item not in found}, {("two.example",)}
        )

    async def test_a_page_is_bounded(self) -> None:
        """Many changes after an outage take several pages, none of which is left out."""
        users = [await self.server.user(f"user{number}") for number in range(5)]
        for user in users:
            await self.record(user, "ONE")
        self.patch(device_list_items, "PAGE_ITEMS", 2)
        found: list[str] = []
        after = self.start
        while after < self.server.log.position:
            page = await self.items.load(after, self.server.log.position)
            self.assertLessEqual(len(page.items), 2)
            found += [
                item.change.user_id for item in page.items if isinstance(item, OwnListChanged)
            ]
            after = page.upto
        self.assertEqual(found, [user.user_id for user in users])

    def test_changes_of_remote_users_are_left_out(self) -> None:
        """Their own servers send them."""
        changed = DeviceListChanged(7, "@bob:two.example", (), None, 1, None)
        known = RoomUnPartialStated(8, 1, b"")

        self.assertEqual(list(self.items.select([changed, known])), [MembersKnown(8, 1)])
