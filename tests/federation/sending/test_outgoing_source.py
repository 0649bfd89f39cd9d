"""Which events of the log the sender gets: those that another server may have to receive."""

from collections.abc import Sequence
from typing import Any

from federation.sending.sender import OutgoingSource
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer


class OutgoingSourceTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.server = await SyncServer.start(self.db)
        self.alice = await self.server.user("alice")
        self.room_id = await self.server.create_room(self.alice)
        self.source = OutgoingSource(self.db, self.server.core.registry)
        self.selected: list[str] = []
        self.server.log.subscribe(self.select)

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    def select(self, entries: Sequence[Any]) -> None:
        self.selected += [each.stored.event.type for each in self.source.select(entries)]

    async def send(self, event_type: str) -> None:
        await self.server.rooms.sending.send_message(
            self.alice, self.room_id, event_type, {}, txn_id=None
        )

    async def test_messages_are_selected_while_another_server_is_in_the_room(self) -> None:
        """Most rooms have no other: their messages cost the sender nothing."""
        remote = self.server.remote
        await self.send("alone")
        await remote.member(self.room_id, "@bob:two.example", "join")
        await self.send("with_bob")
        await remote.member(self.room_id, "@bob:two.example", "leave")
        await self.send("alone_again")

        self.assertEqual(self.selected, ["with_bob"])

    async def test_state_is_selected_in_any_room(self) -> None:
        """A member event may be for the server of a user who is not in the room any more."""
        await self.server.rooms.sending.set_state(
            self.alice, self.room_id, "m.room.topic", "", {"topic": "Plants"}
        )

        self.assertEqual(self.selected, ["m.room.topic"])

    async def test_messages_in_a_room_that_is_not_in_memory_are_selected(self) -> None:
        """Who is in the room is found out where it is loaded."""
        registry = self.server.core.registry
        room = await registry.get(self.room_id)
        entries: list[Any] = []
        self.server.log.subscribe(entries.extend)
        await self.send("message")

        registry.drop(room)
        self.select(entries)

        self.assertEqual(self.selected, ["message"])
