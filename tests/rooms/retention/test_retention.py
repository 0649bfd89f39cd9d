"""The lifetime of messages: hidden when it is over, deleted later, with nothing else broken."""

import re
import time
from typing import Any, ClassVar

import psycopg
from twisted.internet import reactor
from twisted.internet.task import deferLater

from homeserver.rooms.retention.event_purge import EventPurge
from homeserver.storage.database.background_jobs import find_job
from tests.background_jobs.hurried_jobs import hurry_jobs
from tests.support.actors import bodies
from tests.support.postgres import stored_json
from tests.support.server import ServerTestCase

MESSAGE = "m.room.message"


class RetentionTestCase(ServerTestCase):
    """A server on which messages expire, and a user with a room."""

    settings: ClassVar[dict[str, Any]] = {"retention": {"enabled": True}}
    transcodes = True

    async def setUp(self) -> None:
        hurry_jobs(self)
        await super().setUp()
        self.alice = await self.register("alice")
        self.room = await self.alice.create_room()

    async def expire_after(self, ms: int) -> None:
        """Set the lifetime of messages."""
        await self.alice.set_state(self.room, "m.room.retention", {"max_lifetime": ms})

    async def delete(self) -> None:
        """Have the server delete what has expired."""
        retention = self.server.parts.retention.jobs
        await retention.create_if_due()
        job_id = await self.server.parts.jobs.create("delete_expired_messages", {})
        for _ in range(400):
            job = await self.server.parts.db.run(find_job, job_id)
            if job is not None and job.state == "done":
                return
            await deferLater(reactor, 0.02)
        raise AssertionError("the job is not done")

    async def shown(self) -> list[str]:
        """The texts that a user finds by paging back to the beginning."""
        found: list[Any] = []
        page: Any = {"end": None}
        while True:
            since = {} if page["end"] is None else {"from": page["end"]}
            page = await self.alice.messages(self.room, limit=3, **since)
            found += page["chunk"]
            if "end" not in page:
                break
        self.assertEqual(len({each["event_id"] for each in found}), len(found))
        return bodies(found)

    async def synced(self) -> list[str]:
        answer = await self.alice.sync()
        timeline = answer["rooms"]["join"][self.room]["timeline"]["events"]
        return bodies(timeline)

    def stored(self, text: str) -> int:
        """How many events with a text the database has."""
        return sum(text.encode() in event for event in stored_json(self.dsn))


class RetentionTests(RetentionTestCase):
    async def test_an_expired_message_is_hidden_at_once(self) -> None:
        """A user does not see what the room promises to keep no longer, whether deleted or not."""
        event_id = await self.alice.say(self.room, "old")
        self.assertEqual((await self.shown(), await self.synced()), (["old"], ["old"]))

        await self.expire_after(1)
        await deferLater(reactor, 0.01)

        self.assertEqual((await self.shown(), await self.synced()), ([], []))
        await self.assert_refused("M_NOT_FOUND", self.alice.event(self.room, event_id))
        context = f"/rooms/{self.room}/context/{event_id}"
        await self.assert_refused("M_NOT_FOUND", self.alice.get(context))
        state = await self.alice.full_state(self.room)
        self.assertIn(("m.room.retention", ""), state)
        self.assertEqual(self.stored("old"), 1)

    async def test_a_longer_lifetime_shows_what_is_not_deleted_yet(self) -> None:
        """Nothing is lost by a wrong number before the next deletion."""
        await self.alice.say(self.room, "old")
        await self.expire_after(1)
        await deferLater(reactor, 0.01)

        await self.expire_after(3_600_000)

        self.assertEqual(await self.shown(), ["old"])

    async def test_expired_messages_are_deleted_and_others_are_not(self) -> None:
        """The content is gone from the database; the room works on, also after a restart."""
        for number in range(5):
            await self.alice.say(self.room, f"old {number}")
        parent = await self.alice.say(self.room, "old parent")
        relation = {"rel_type": "m.thread", "event_id": parent}
        reply = {"msgtype": "m.text", "body": "old reply", "m.relates_to": relation}
        await self.alice.send(self.room, MESSAGE, reply)
        since = (await self.alice.sync())["next_batch"]
        await self.expire_after(1)
        await deferLater(reactor, 0.01)
        await self.delete()
        await self.expire_after(3_600_000)
        await self.alice.say(self.room, "new")

        self.assertEqual(self.stored("old"), 0)
        self.assertEqual((await self.shown(), await self.synced()), (["new"], ["new"]))
        changes = await self.alice.sync(since)
        timeline = changes["rooms"]["join"][self.room]["timeline"]
        self.assertEqual(bodies(timeline["events"]), ["new"])
        await self.restart_server(self.alice)
        await self.alice.say(self.room, "newer")
        self.assertEqual(await self.shown(), ["newer", "new"])

    async def test_the_newest_event_stays_in_its_place(self) -> None:
        """A room whose last message has expired can be loaded, and continued."""
        await self.expire_after(1)
        await self.alice.say(self.room, "last")
        await deferLater(reactor, 0.01)

        await self.delete()
        await self.restart_server(self.alice)
        await self.expire_after(3_600_000)
        await self.alice.say(self.room, "next")

        self.assertEqual(self.stored("last"), 0)
        with psycopg.connect(self.dsn) as connection:
            count = "SELECT count(*) FROM backward_extremities"
            self.assertEqual(connection.execute(count).fetchone(), (0,))
        timeline = (await self.alice.sync())["rooms"]["join"][self.room]["timeline"]["events"]
        contents = [each["content"].get("body") for each in timeline if each["type"] == MESSAGE]
        self.assertEqual(contents, [None, "next"])

    async def test_what_has_no_content_left_is_not_deleted_again(self) -> None:
        """The last message of an idle room costs no commit at each of the jobs of all years."""
        purged: list[int] = []
        append = EventPurge._append

        def counting(*arguments: Any, **more: Any) -> Any:
            purged.append(len(arguments[2]))
            return append(*arguments, **more)

        self.patch(EventPurge, "_append", counting)
        await self.expire_after(1)
        await self.alice.say(self.room, "last")
        await deferLater(reactor, 0.01)

        await self.delete()
        await self.delete()

        self.assertEqual((purged, self.stored('"last"')), ([1], 0))

    async def test_a_sender_cannot_make_a_message_live_longer(self) -> None:
        """An application service may date its message a year ahead; it expires with the others."""
        event_id = await self.alice.say(self.room, "ahead")
        ahead = int(time.time() * 1000) + 365 * 86_400_000
        (json,) = [json for json in stored_json(self.dsn) if b"ahead" in json]
        dated = re.sub(rb'(?<="origin_server_ts":)[0-9]+', b"%d" % ahead, json)
        with psycopg.connect(self.dsn) as connection:
            connection.execute("UPDATE events SET json = %s WHERE event_id = %s", (dated, event_id))
        await self.restart_server(self.alice)

        await self.expire_after(1)
        await deferLater(reactor, 0.01)

        self.assertEqual(await self.shown(), [])


class DefaultLifetimeTests(RetentionTestCase):
    settings: ClassVar[dict[str, Any]] = {"retention": {"enabled": True, "default_lifetime": 1}}

    async def test_rooms_that_say_nothing_have_the_lifetime_of_the_server(self) -> None:
        """An operator who must not keep messages need not ask every room."""
        await self.alice.create_room(name="idle")
        await self.alice.say(self.room, "old")
        shown = await self.shown()
        await deferLater(reactor, 1.05)
        await self.alice.set_state(self.room, "m.room.topic", {"topic": "tea"})
        hidden = await self.shown()
        await self.delete()

        self.assertEqual((shown, hidden, self.stored('"old"')), (["old"], [], 0))
        # Rooms without old messages need not be loaded, nor those whose last one has no content.
        await self.alice.say(await self.alice.create_room(), "old")
        await deferLater(reactor, 1.05)
        before = await self.server.parts.retention.jobs._next_room(0, 1_000)
        await self.delete()
        self.assertNotEqual(before, (None, None))
        next_room = await self.server.parts.retention.jobs._next_room(0, 1_000)
        self.assertEqual(next_room, (None, None))


class NoRetentionTests(ServerTestCase):
    async def test_without_the_setting_nothing_expires(self) -> None:
        """An operator who has not agreed keeps all messages, whatever rooms say."""
        alice = await self.register("alice")
        room = await alice.create_room()
        await alice.say(room, "kept")
        await alice.set_state(room, "m.room.retention", {"max_lifetime": 1})
        await deferLater(reactor, 0.01)

        page = await alice.messages(room)

        self.assertIn("kept", bodies(page["chunk"]))
