"""What is purged is not found any more, and leaves no word in the index."""

import time
from typing import Any

import psycopg

from homeserver.protocol.retention.message_expiry import SELF_DESTRUCT_AFTER
from tests.api.search.search_test_case import ids
from tests.rooms.retention.test_history_purge import PurgeTestCase
from tests.search.stored_index import stored_entries


class SearchPurgeTests(PurgeTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.room = await self.alice.create_room()

    async def found(self) -> list[str]:
        body = {"search_categories": {"room_events": {"search_term": "needle"}}}
        answer: Any = await self.alice.post("/search", body)
        return ids(answer["search_categories"]["room_events"])

    async def entries(self) -> int:
        """The number of entries of the index."""
        await self.server.parts.search.indexing.written()
        return len(stored_entries(self.dsn))

    async def test_purged_history(self) -> None:
        """An operator who deletes messages deletes their words, too, also those just sent."""
        for indexed in (True, False):
            old = [await self.alice.say(self.room, f"needle {number}") for number in range(3)]
            new = await self.alice.say(self.room, "needle")
            if indexed:
                self.assertLessEqual({*old, new}, set(await self.found()))

            await self.job_of("purge-history", self.room, "--before-event", new, "--with-local")

            self.assertEqual(await self.found(), [new])
            self.assertEqual(await self.entries(), 1)

    async def test_a_purge_right_before_a_crash(self) -> None:
        """What was purged leaves the index with the next start, though no reader sees it again."""
        old = await self.alice.say(self.room, "needle")
        new = await self.alice.say(self.room, "needle")
        self.assertEqual(await self.entries(), 2)
        await self.stop_server()
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "INSERT INTO search_removals SELECT event FROM events WHERE event_id = %s", (old,)
            )

        await self.start_server()

        self.alice.url = self.url
        self.assertEqual(await self.found(), [new])
        self.assertEqual(len(stored_entries(self.dsn)), 1)
        with psycopg.connect(self.dsn) as connection:
            left = connection.execute("SELECT count(*) FROM search_removals").fetchone()
        self.assertEqual(left, (0,))

    async def test_a_deleted_room(self) -> None:
        """An operator who deletes a room deletes its words."""
        await self.alice.say(self.room, "needle")
        other = await self.alice.create_room()
        kept = await self.alice.say(other, "needle")
        self.assertEqual(len(await self.found()), 2)

        await self.job_of("delete", self.room)

        self.assertEqual(await self.found(), [kept])
        self.assertEqual(await self.entries(), 1)

    async def test_a_message_that_destroys_itself(self) -> None:
        """A message leaves no word, whether it was in the index already or would still enter it."""
        for indexed in (True, False):
            due = int((time.time() + (1.0 if indexed else 0.0)) * 1000)
            content = {"msgtype": "m.text", "body": "needle", SELF_DESTRUCT_AFTER: due}
            event_id = await self.alice.send(self.room, "m.room.message", content)
            if indexed:
                self.assertEqual(await self.found(), [event_id])

            async def is_gone(event_id: str = event_id) -> bool:
                event = await self.alice.event(self.room, event_id)
                return bool(event["content"] == {})

            while not await is_gone():
                pass
            self.assertEqual(await self.found(), [])
            self.assertEqual(await self.entries(), 0)
