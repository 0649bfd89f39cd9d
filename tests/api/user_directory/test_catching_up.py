"""The user directory after a crash, an upgrade, and what it has missed."""

from typing import Any

import psycopg

from homeserver.storage.database.migrate import load_migrations
from tests.api.user_directory.directory_server import UserDirectoryTestCase
from tests.support.reactor import until

TABLES = ("entries", "keys", "rooms")


class CatchingUpTests(UserDirectoryTestCase):
    """Alice, Bob and Carol in a private room, and rooms of Bob's."""

    async def setUp(self) -> None:
        await super().setUp()
        self.carol = await self.register("carol")
        self.private = await self.meet(self.alice, self.bob, self.carol)
        self.opened = await self.meet(self.bob, self.carol)
        self.public = await self.bob.create_room(preset="public_chat")
        await self.until_filled()

    def execute(self, *statements: str) -> list[Any]:
        """The rows of the last statement, in the database of the server."""
        with psycopg.connect(self.dsn) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def dump(self) -> list[Any]:
        """All rows of the directory, of rooms and of accounts."""
        rows = [self.execute(f"SELECT * FROM user_directory_{table}") for table in TABLES]
        return [sorted(map(repr, table)) for table in rows]

    async def until_filled(self) -> None:
        """Wait until everything that was missing after a start is there."""
        await until(
            lambda: (
                not self.execute("SELECT 1 FROM user_directory_accounts")
                and not self.execute(
                    """
                    SELECT 1 FROM rooms LEFT JOIN user_directory_rooms USING (room)
                     WHERE is_complete IS NOT TRUE
                    """
                )
            )
        )
        await self.settle()

    async def change_everything(self) -> None:
        """Changes of all kinds."""
        await self.rename(self.bob, "Robert")
        await self.carol.leave(self.private)
        await self.bob.set_state(self.opened, "m.room.join_rules", {"join_rule": "public"})
        await self.alice.join(self.opened)
        visibility = {"history_visibility": "world_readable"}
        await self.alice.set_state(self.private, "m.room.history_visibility", visibility)
        rules = await self.bob.set_state(self.public, "m.room.join_rules", {"join_rule": "invite"})
        await self.bob.set_state(self.public, "m.room.join_rules", {"join_rule": "public"})
        await self.bob.redact(self.public, rules)
        await self.alice.create_room(preset="public_chat")

    async def test_what_was_missed_is_read_from_the_database(self) -> None:
        """A reader that is killed before it handled anything ends with the same directory."""
        for table in TABLES:
            self.execute(f"CREATE TABLE kept_{table} AS TABLE user_directory_{table}")
        (reader,) = (each for each in self.server.parts.readers if each.name == "user_directory")
        position = reader.position
        await self.change_everything()
        await self.settle()
        followed = self.dump()
        await self.stop_server()
        for table in TABLES:
            name = f"user_directory_{table}"
            self.execute(f"TRUNCATE {name}", f"INSERT INTO {name} SELECT * FROM kept_{table}")
        self.execute(
            f"UPDATE reader_positions SET position = {position} WHERE reader = 'user_directory'"
        )

        await self.start_server()
        await self.settle()

        self.assertEqual(self.dump(), followed)

    async def test_old_rooms_and_accounts_are_indexed_after_the_upgrade(self) -> None:
        """The first start with the new version fills the new tables in the background."""
        await self.change_everything()
        await self.until_filled()
        followed = self.dump()
        await self.stop_server()
        self.execute(
            "DROP TRIGGER users_enter_directory ON users",
            "DROP FUNCTION enqueue_directory_account",
            "DROP TABLE user_directory_accounts, user_directory_rooms,"
            " user_directory_entries, user_directory_keys",
            "DELETE FROM reader_positions WHERE reader = 'user_directory'",
            *(each.text for each in load_migrations() if "user_directory" in each.name),
        )

        await self.start_server()
        await self.until_filled()

        self.assertEqual(self.dump(), followed)

    async def test_room_that_was_half_done_is_finished_after_the_start(self) -> None:
        """A kill in the middle of a large room leaves some members without entries."""
        await self.until_filled()
        followed = self.dump()
        await self.stop_server()
        self.execute(
            "DELETE FROM user_directory_entries WHERE member % 2 = 0",
            "DELETE FROM user_directory_keys WHERE member % 2 = 0",
            "UPDATE user_directory_rooms SET is_complete = false",
            "INSERT INTO user_directory_accounts (user_id) SELECT user_id FROM users",
        )

        await self.start_server()
        await self.until_filled()

        self.assertEqual(self.dump(), followed)

    async def test_server_that_is_restarted_finds_the_same(self) -> None:
        """Nothing depends on what was in memory."""
        self.assertEqual(await self.found(self.alice, "car"), ["carol"])

        await self.restart_server(self.alice, self.carol)
        await self.rename(self.carol, "Karoline")

        self.assertEqual(await self.found(self.alice, "car"), ["carol"])
        self.assertEqual(await self.found(self.alice, "kar"), ["carol"])
