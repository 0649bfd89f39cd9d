"""The migration that finds existing gaps in timelines."""

from homeserver.storage.database.database import Connection
from homeserver.storage.database.migrate import load_migrations
from homeserver.storage.rooms.event_json import unpack_json
from tests.support.postgres import DatabaseTestCase
from tests.sync.remote_room import RemoteRoom
from tests.sync.sync_server import SyncServer


class TimelineGapsMigrationTests(DatabaseTestCase):
    async def test_gaps_that_were_not_filled_are_found(self) -> None:
        """After an upgrade a timeline begins where the new version would begin it."""
        there = RemoteRoom()
        server = await SyncServer.start(self.db, there)
        there.use(server)
        carol = await server.user("carol")
        await there.join(carol)
        await there.deliver(there.say("before"))
        for body in ("missed", "missed again"):
            there.say(body)
            await there.deliver(there.say("after"))
        await server.say(carol, there.room_id, "and on")
        await server.stop()
        expected = await self.gaps()

        statement = next(
            each.text.partition("INSERT INTO")[2]
            for each in load_migrations()
            if each.name == "timeline_gaps"
        )
        async with self.db.connection() as connection:
            await self.store_plain_json(connection)
            await connection.execute("DELETE FROM timeline_gaps")
            await connection.execute(f"INSERT INTO {statement}".encode())

        assert len(expected) == 2
        assert await self.gaps() == expected

    async def store_plain_json(self, db: Connection) -> None:
        """Store events as they were at the time of the migration: not compressed."""
        cursor = await db.execute("SELECT event, json FROM events")
        for event, json in await cursor.fetchall():
            query = "UPDATE events SET json = %s WHERE event = %s"
            await db.execute(query, (unpack_json(json), event))

    async def gaps(self) -> list[tuple[int, int]]:
        async with self.db.connection() as connection:
            cursor = await connection.execute(
                "SELECT room, position FROM timeline_gaps ORDER BY position"
            )
            return await cursor.fetchall()
