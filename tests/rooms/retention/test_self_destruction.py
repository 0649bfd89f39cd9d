"""Self-destructing messages: their content is gone in time, everywhere, and after a restart."""

import time
from typing import Any

import psycopg
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.support.actors import Actor
from tests.support.postgres import stored_json
from tests.support.server import ServerTestCase

KEY = "org.matrix.self_destruct_after"


class SelfDestructionTests(ServerTestCase):
    transcodes = True

    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.room = await self.alice.create_room()

    async def say_until(self, seconds: float, **content: Any) -> str:
        """Send a message that expires after a time."""
        due = int((time.time() + seconds) * 1000)
        body = {"msgtype": "m.text", "body": "secret", KEY: due, **content}
        return await self.alice.send(self.room, "m.room.message", body)

    async def until_expired(self, event_id: str) -> Any:
        """The event, once its content is gone."""
        for _ in range(200):
            event = await self.alice.event(self.room, event_id)
            if event["content"] == {}:
                return event
            await deferLater(reactor, 0.02)
        raise AssertionError("the message has not expired")

    def stored(self) -> bytes:
        """The JSON of all events in the database."""
        return b"".join(stored_json(self.dsn))

    def waiting(self) -> int:
        with psycopg.connect(self.dsn) as connection:
            return len(connection.execute("SELECT FROM expiring_events").fetchall())

    async def test_a_message_is_gone_when_its_time_has_come(self) -> None:
        """A user who shares a password for a moment finds it deleted, in the database as well."""
        event_id = await self.say_until(0.3)
        before = await self.alice.event(self.room, event_id)
        other = await self.say_until(3_600)

        await self.until_expired(event_id)

        self.assertEqual(before["content"]["body"], "secret")
        contents = {
            each["event_id"]: each["content"] for each in await _chunk(self.alice, self.room)
        }
        self.assertEqual(contents[event_id], {})
        self.assertEqual(contents[other]["body"], "secret")
        self.assertEqual(self.stored().count(b"secret"), 1)
        self.assertEqual(self.waiting(), 1)

    async def test_the_time_is_kept_over_a_restart(self) -> None:
        """A server that was stopped when the time came deletes the content at its start."""
        event_id = await self.say_until(0.1)
        later = await self.say_until(0.6)
        await self.stop_server()
        await deferLater(reactor, 0.1)

        await self.start_server()
        self.alice.url = self.url

        await self.until_expired(event_id)
        await self.until_expired(later)
        self.assertEqual((self.stored().count(b"secret"), self.waiting()), (0, 0))

    async def test_a_time_in_the_past_deletes_at_once(self) -> None:
        """An import of an old message does not keep what its sender wanted to be gone."""
        await self.until_expired(await self.say_until(-10))

    async def test_nonsense_is_no_time(self) -> None:
        """A value that is no time has no effect, and is no error."""
        for value in ("soon", True, -1, [1], {}, None):
            event_id = await self.say_until(0, **{KEY: value})
            event = await self.alice.event(self.room, event_id)
            self.assertEqual(event["content"]["body"], "secret")
        self.assertEqual(self.waiting(), 0)

    async def test_state_does_not_expire(self) -> None:
        """The state of a room is the same on all servers, whatever its sender wants."""
        await self.alice.set_state(self.room, "m.room.topic", {"topic": "tea", KEY: 1})

        await self.until_expired(await self.say_until(-1))

        topic = await self.alice.state(self.room, "m.room.topic")
        self.assertEqual(topic["topic"], "tea")

    async def test_an_edit_that_expired_is_no_longer_shown(self) -> None:
        """The new text of an edit is gone with it."""
        event_id = await self.alice.say(self.room, "first")
        relation = {"rel_type": "m.replace", "event_id": event_id}
        new = {"msgtype": "m.text", "body": "second"}
        edit = await self.say_until(0.2, **{"m.relates_to": relation, "m.new_content": new})

        await self.until_expired(edit)

        event = await self.alice.event(self.room, event_id)
        self.assertNotIn("m.relations", event["unsigned"])


async def _chunk(actor: Actor, room: str) -> list[Any]:
    page = await actor.messages(room, limit=50)
    chunk: list[Any] = page["chunk"]
    return chunk
