"""Imports into a room of another server, of which this server misses parts."""

from typing import Any

from homeserver.rooms.history.history import PageRequest
from homeserver.rooms.history_import.history_import import HistoryImport
from homeserver.rooms.history_import.import_request import ImportRequest
from tests.rooms.history_import.support import BRIDGE, find_importer, old
from tests.rooms.inbound.replica import ALICE
from tests.support.postgres import DatabaseTestCase
from tests.sync.remote_room import RemoteRoom
from tests.sync.sync_server import SyncServer


class ImportsWithGapsTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = RemoteRoom()
        self.server = await SyncServer.start(self.db, self.there)
        self.there.use(self.server)
        registry, receipts = self.server.core.registry, self.server.sync.receipts
        self.imports = HistoryImport(self.db, registry, receipts, find_importer)
        for number in range(3):
            self.there.say(f"past {number}")
        await self.server.user("bridge")
        await self.there.join(BRIDGE)
        levels = {"users": {ALICE: 100, BRIDGE.user_id: 50}}
        await self.there.deliver(self.there.make("m.room.power_levels", ALICE, levels, ""))
        await self.there.deliver(self.there.say("here 1"))
        for number in range(3):
            self.there.say(f"missed {number}")
        self.after = self.there.say("here 2")
        await self.there.deliver(self.after)

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def put(self, *texts: str, **options: Any) -> list[str]:
        request = ImportRequest([old(text) for text in texts], **options)
        return await self.imports.insert(BRIDGE, self.there.room_id, request)

    async def said(self, *, backwards: bool, limit: int) -> list[str]:
        """All messages that the bridge's user pages to, oldest first."""
        found: list[str] = []
        since = None
        while True:
            ask = PageRequest(backwards, since, limit=limit)
            history = self.server.rooms.history
            page = await history.page(BRIDGE.user_id, self.there.room_id, ask)
            events = [seen.stored.event for seen in page.chunk]
            found += [each.content["body"] for each in events if "body" in each.content]
            since = page.end
            if since is None:
                return found[::-1] if backwards else found

    async def test_imported_events_are_after_the_gap_and_what_fills_it(self) -> None:
        """They come right before their event, whether the gap is filled before or later."""
        await self.put("old 1", "old 2")
        await self.put("old 3", before=self.after.event_id)
        past, missed = [[f"{word} {n}" for n in range(3)] for word in ("past", "missed")]
        expected = [*past, "old 1", "old 2", "here 1", *missed, "old 3", "here 2"]

        for limit in (2, 100):
            assert await self.said(backwards=True, limit=limit) == expected
            assert await self.said(backwards=False, limit=limit) == expected
        await self.put("old 4", before=self.after.event_id)
        await self.put("oldest")
        expected.insert(-2, "old 4")
        for limit in (2, 100):
            assert await self.said(backwards=True, limit=limit) == ["oldest", *expected]
            assert await self.said(backwards=False, limit=limit) == ["oldest", *expected]

    async def test_event_of_another_server_follows_what_was_imported_at_the_end(self) -> None:
        """Though it follows the same events in the graph, which that server knows alone."""
        await self.put("old 1", "old 2", forward=True)
        await self.there.deliver(self.there.say("here 3"))
        await self.put("old 3", forward=True)
        await self.there.deliver(self.there.say("here 4"))

        newest = ["here 2", "old 1", "old 2", "here 3", "old 3", "here 4"]
        assert (await self.said(backwards=True, limit=3))[-6:] == newest
