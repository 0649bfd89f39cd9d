"""The purge of a room's history, as the command creates it and the running server does it."""

import json
import subprocess
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from homeserver.rooms.retention import history_purge
from homeserver.storage.database.background_jobs import Job, find_job
from tests.background_jobs.hurried_jobs import hurry_jobs
from tests.cli.command_line import homeserver
from tests.support.actors import Actor, bodies
from tests.support.postgres import stored_json
from tests.support.server import ServerTestCase


class PurgeTestCase(ServerTestCase):
    """A server, whose operator uses the command line."""

    transcodes = True

    async def setUp(self) -> None:
        hurry_jobs(self)
        await super().setUp()

    async def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`homeserver room …`."""
        config = self._directory / "command.yaml"
        config.write_text(json.dumps({"server_name": "example.org", "database": {"dsn": self.dsn}}))
        done: subprocess.CompletedProcess[str] = await deferToThread(
            homeserver, "room", *words, "--config", config
        )
        return done

    async def job_of(self, *words: str) -> Job:
        """The job that a command creates, once it has ended."""
        done = await self.command(*words)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        job_id = int(done.stdout.split()[1])
        for _ in range(1_000):
            job = await self.server.parts.db.run(find_job, job_id)
            if job is not None and job.state not in ("waiting", "running"):
                return job
            await deferLater(reactor, 0.02)
        raise AssertionError("the job does not end")

    def stored(self, text: str) -> int:
        """How many events with a text the database has."""
        return sum(text.encode() in event for event in stored_json(self.dsn))


class HistoryPurgeTests(PurgeTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.room = await self.alice.create_room()

    async def shown(self) -> list[str]:
        page: Any = await self.alice.messages(self.room, limit=100)
        return bodies(page["chunk"])

    async def test_messages_before_an_event_are_deleted(self) -> None:
        """An operator frees what nobody needs; the room, its state and later messages stay."""
        for number in range(3):
            await self.alice.say(self.room, f"old {number}")
        event_id = await self.alice.say(self.room, "kept")
        await self.alice.say(self.room, "last")

        job = await self.job_of(
            "purge-history", self.room, "--before-event", event_id, "--with-local"
        )

        self.assertEqual((job.state, job.done, job.total), ("done", 3, 3))
        self.assertEqual(await self.shown(), ["last", "kept"])
        self.assertEqual(self.stored("old "), 0)
        await self.restart_server(self.alice)
        await self.alice.say(self.room, "next")
        self.assertEqual(await self.shown(), ["next", "last", "kept"])

    async def test_what_is_deleted_is_not_unread(self) -> None:
        """Counts are those of a server that has just started: of what there still is."""
        bob = await self.register("bob")
        await self.alice.post(f"/rooms/{self.room}/invite", {"user_id": bob.user_id})
        await bob.join(self.room)
        for number in range(3):
            await self.alice.say(self.room, f"old {number}")
        event_id = await self.alice.say(self.room, "kept")
        self.assertEqual(await self.unread(bob), 4)

        await self.job_of("purge-history", self.room, "--before-event", event_id, "--with-local")

        self.assertEqual(await self.unread(bob), 1)
        await self.restart_server(self.alice, bob)
        self.assertEqual(await self.unread(bob), 1)

    async def unread(self, user: Actor) -> int:
        section = (await user.sync())["rooms"]["join"][self.room]
        count: int = section["unread_notifications"]["notification_count"]
        return count

    async def test_a_long_history_is_purged_without_being_counted(self) -> None:
        """The first step for millions of messages does not run into the timeout of statements."""
        self.patch(history_purge, "MAX_COUNTED", 2)
        self.patch(history_purge, "MAX_EXAMINED", 2)
        for number in range(5):
            await self.alice.say(self.room, f"old {number}")
        event_id = await self.alice.say(self.room, "kept")

        job = await self.job_of(
            "purge-history", self.room, "--before-event", event_id, "--with-local"
        )

        self.assertEqual((job.state, job.done, job.total), ("done", 5, None))
        self.assertEqual(await self.shown(), ["kept"])

    async def test_what_local_users_sent_is_kept_unless_asked_for(self) -> None:
        """No other server has a copy of it for sure."""
        await self.alice.say(self.room, "old")
        event_id = await self.alice.say(self.room, "new")

        await self.job_of("purge-history", self.room, "--before-event", event_id)

        self.assertEqual(await self.shown(), ["new", "old"])

    async def test_messages_of_an_age_are_deleted(self) -> None:
        """An operator keeps the messages of the last days."""
        await self.alice.say(self.room, "old")
        await deferLater(reactor, 1.1)
        await self.alice.set_state(self.room, "m.room.topic", {"topic": "tea"})

        await self.job_of("purge-history", self.room, "--older-than", "1h", "--with-local")
        kept = await self.shown()
        await self.job_of("purge-history", self.room, "--older-than", "1s", "--with-local")

        self.assertEqual((kept, await self.shown()), (["old"], []))
        self.assertEqual((await self.alice.state(self.room, "m.room.topic"))["topic"], "tea")

    async def test_mistakes(self) -> None:
        """A mistyped id is noticed before anything is deleted."""
        no_room = await self.command("purge-history", "!nowhere:example.org", "--older-than", "1h")
        no_event = await self.command("purge-history", self.room, "--before-event", "$none")

        self.assertEqual(
            no_room.stderr, "This server does not know the room !nowhere:example.org\n"
        )
        self.assertEqual(no_event.stderr, "The room has no event $none\n")
