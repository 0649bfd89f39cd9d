"""The deletion of a room, as the command creates it and the running server does it."""

from typing import Any

import psycopg
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from homeserver.rooms.membership.forced_leaves import ForcedLeaves
from homeserver.rooms.retention import room_deletion
from homeserver.storage.database.background_jobs import find_job
from tests.rooms.retention.test_history_purge import PurgeTestCase

MAX_RESTARTS = 6
ROOM_NID = 1_234_567  # a number that is nothing else by chance


class RoomDeletionTests(PurgeTestCase):
    async def setUp(self) -> None:
        self.patch(room_deletion, "SETTLE_MS", 0)
        await super().setUp()
        self.alice, self.bob = await self.register("alice"), await self.register("bob")
        with psycopg.connect(self.dsn) as connection:
            connection.execute("SELECT setval('names_nid_seq', %s)", (ROOM_NID - 1,))
        self.room = await self.alice.create_room(preset="public_chat", room_alias_name="tea")
        await self.bob.join(self.room)

    async def fill(self) -> None:
        """Put something of the room into as many tables as a client can."""
        event_id = await self.alice.say(self.room, "secret @bob")
        mention = {"msgtype": "m.text", "body": "secret", "m.mentions": {"room": True}}
        await self.alice.send(self.room, "m.room.message", mention)
        edit = {"rel_type": "m.reference", "event_id": event_id}
        await self.bob.send(self.room, "m.room.message", {**mention, "m.relates_to": edit})
        due = {"org.matrix.self_destruct_after": 2**50, "msgtype": "m.text", "body": "secret"}
        await self.bob.send(self.room, "m.room.message", due)
        await self.bob.read(self.room, event_id)
        await self.alice.set_state(self.room, "m.room.retention", {"max_lifetime": 10**10})
        await self.alice.put(
            f"/user/{self.alice.user_id}/rooms/{self.room}/tags/m.favourite", {"order": 0.5}
        )
        await self.alice.put(f"/directory/list/room/{self.room}", {"visibility": "public"})

    def nid(self) -> int:
        """The nid of the room."""
        with psycopg.connect(self.dsn) as connection:
            query = "SELECT nid FROM names WHERE name = %s"
            row = connection.execute(query, (self.room,)).fetchone()
        assert row is not None
        found: int = row[0]
        return found

    def left_over(self) -> list[tuple[str, str]]:
        """All columns of all tables that still name the room."""
        nid, found = self.nid(), []
        with psycopg.connect(self.dsn) as connection:
            columns = connection.execute(
                "SELECT table_name, column_name, data_type FROM information_schema.columns"
                " WHERE table_schema = 'public' AND data_type IN ('integer', 'bigint', 'text')"
            ).fetchall()
            for table, column, kind in columns:
                value: Any = self.room if kind == "text" else nid
                query = f'SELECT FROM {table} WHERE "{column}" = %s LIMIT 1'
                if connection.execute(query.encode(), (value,)).fetchone() is not None:
                    found.append((table, column))
        return sorted(found)

    async def test_nothing_of_the_room_is_left(self) -> None:
        """After the deletion no row names the room, its members are out, and others go on."""
        other = await self.alice.create_room(name="other")
        await self.fill()
        before = dict.fromkeys(table for table, _ in self.left_over())
        since = (await self.bob.sync())["next_batch"]

        job = await self.job_of("delete", self.room)

        self.assertEqual((job.state, job.done), ("done", job.total))
        self.assertEqual(self.left_over(), [("names", "name"), ("names", "nid")])
        self.assertLess({"events", "receipts", "mentions", "relations", "room_aliases"}, {*before})
        self.assertEqual(self.stored("secret"), 0)
        for actor in (self.alice, self.bob):
            joined = (await actor.get("/joined_rooms"))["joined_rooms"]
            self.assertNotIn(self.room, joined)
            await self.assert_refused("M_FORBIDDEN", actor.messages(self.room))
            await self.assert_refused("M_NOT_FOUND", actor.say(self.room, "hello"))
            self.assertNotIn(self.room, (await actor.sync()).get("rooms", {}).get("join", {}))
        await self.bob.sync(since)
        await self.assert_refused("M_NOT_FOUND", self.bob.get("/directory/room/%23tea:example.org"))
        self.assertEqual((await self.bob.get("/publicRooms"))["chunk"], [])
        await self.alice.say(other, "hello")
        await self.restart_server(self.alice)
        await self.alice.sync()

    async def test_a_member_who_comes_back_leaves_again(self) -> None:
        """A user whose client joins again at once is notified that they are out, too."""
        self.patch(room_deletion, "SETTLE_MS", 2_000)
        left: list[str] = []
        leave = ForcedLeaves.leave

        async def counting(leaves: ForcedLeaves, room_id: str, user_id: str) -> None:
            left.append(user_id)
            await leave(leaves, room_id, user_id)

        self.patch(ForcedLeaves, "leave", counting)
        deletion = Deferred.fromCoroutine(self.job_of("delete", self.room))
        while (await self.bob.get("/joined_rooms"))["joined_rooms"]:
            await deferLater(reactor, 0.02)

        await self.bob.join(self.room)
        job = await deletion

        self.assertEqual(job.state, "done")
        self.assertEqual(left.count(self.bob.user_id), 2)

    async def test_what_is_much_is_deleted_in_parts(self) -> None:
        """No statement for a large room takes long, or holds many locks."""
        self.patch(room_deletion, "ROWS", 2)
        deleted: list[int] = []
        delete = room_deletion.delete_of_room

        async def counting(*arguments: Any) -> int:
            deleted.append(await delete(*arguments))
            return deleted[-1]

        self.patch(room_deletion, "delete_of_room", counting)
        await self.fill()
        rows = f"SELECT {self.nid()}, 'key' || number, number FROM generate_series(1, 7) AS number"
        with psycopg.connect(self.dsn) as connection:
            connection.execute(f"INSERT INTO user_directory_keys {rows}".encode())

        await self.job_of("delete", self.room)

        self.assertEqual(max(deleted), 2)
        self.assertEqual(self.left_over(), [("names", "name"), ("names", "nid")])

    async def test_the_search_index_is_written_meanwhile(self) -> None:
        """The words of a message do not enter the index once its room is being deleted."""
        await self.alice.say(self.room, "secret")
        erased = room_deletion.delete_events_of_room

        async def indexed_meanwhile(db: Any, room: int, limit: int) -> int:
            await self.server.parts.search.indexing.written()
            return await erased(db, room, limit)

        self.patch(room_deletion, "delete_events_of_room", indexed_meanwhile)

        await self.job_of("delete", self.room)

        self.assertEqual(self.left_over(), [("names", "name"), ("names", "nid")])

    async def test_members_hear_that_they_are_out(self) -> None:
        """A client that is online shows the room as left, and not as frozen."""
        self.patch(room_deletion, "SETTLE_MS", 3_000)
        since = (await self.bob.sync())["next_batch"]
        deletion = Deferred.fromCoroutine(self.job_of("delete", self.room))

        while True:
            changes = await self.bob.sync(since, timeout_ms=20_000)
            if self.room in changes["rooms"].get("leave", {}):
                break
            since = changes["next_batch"]

        await deletion

    async def test_a_deleted_room_is_not_joined_again(self) -> None:
        """Neither while caches may know it, nor later if the operator has blocked it."""
        await self.job_of("delete", self.room, "--block")

        join = f"/join/{self.room}?server_name=elsewhere.example"
        refused = await self.assert_refused("M_FORBIDDEN", self.bob.post(join, {}))
        await self.restart_server(self.bob)
        later = await self.assert_refused("M_FORBIDDEN", self.bob.post(join, {}))

        done = await self.command("unblock", self.room)
        again = await self.command("unblock", self.room)
        self.assertEqual(done.stdout, f"Unblocked {self.room}\n")
        self.assertIn("is not blocked", again.stderr)
        other = await self.assert_refused("M_FORBIDDEN", self.bob.post(join, {}))
        reasons = ["does not take part" in str(each) for each in (refused, later, other)]
        self.assertEqual(reasons, [True, True, False])

    async def test_an_interrupted_deletion_continues(self) -> None:
        """A server that is stopped anywhere ends with nothing of the room."""
        await self.fill()
        jobs = self.server.parts.jobs
        arguments = {"room": self.nid(), "room_id": self.room, "block": False}
        job_id = await jobs.create("delete_room", arguments)
        phases: dict[object, int] = {}
        while (job := await self.server.parts.db.run(find_job, job_id)) and job.state != "done":
            phase = job.progress.get("phase"), job.progress.get("table")
            if phase not in phases and len(phases) < MAX_RESTARTS:
                phases[phase] = job.done
                await self.restart_server(self.alice)
            await deferLater(reactor, 0.02)

        self.assertGreater(len(phases), 2)
        self.assertEqual(self.left_over(), [("names", "name"), ("names", "nid")])
