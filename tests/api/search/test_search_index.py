"""The index: what enters it, and that it is complete after an upgrade, an outage or a restart."""

from typing import Any
from urllib.parse import quote

import psycopg

from homeserver.protocol.search.searchable import SearchKey
from homeserver.protocol.search.signatures import signature_places, text_numbers, wanted_numbers
from homeserver.search import index_job, indexed_events
from homeserver.search.indexing import Indexing
from homeserver.storage.database.background_jobs import insert_job
from homeserver.streams.positions import MAX_POSITION
from tests.api.search.search_test_case import SearchTestCase, ids
from tests.appservices.support import AppserviceTestCase, registration
from tests.search.stored_index import stored_entries
from tests.support.organisations import FederationTestCase
from tests.support.reactor import until


async def found(actor: Any, term: str, **criteria: Any) -> list[str]:
    """The ids of the results of a search."""
    body = {"search_categories": {"room_events": {"search_term": term, **criteria}}}
    answer = await actor.post("/search", body)
    return ids(answer["search_categories"]["room_events"])


class IndexTests(SearchTestCase):
    def execute(self, statement: str) -> list[Any]:
        with psycopg.connect(self.dsn) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @property
    def indexing(self) -> Indexing:
        return self.server.parts.search.indexing

    async def until_indexed(self) -> None:
        """Wait until no background job is left."""
        unfinished = "SELECT count(*) FROM background_jobs WHERE state IN ('waiting', 'running')"
        await until(lambda: self.execute(unfinished) == [(0,)])

    async def test_a_database_from_before_is_indexed(self) -> None:
        """After the upgrade of a server its users find what was said before."""
        self.patch(indexed_events, "PAGE_EVENTS", 7)
        sent = [await self.alice.say(self.room, f"needle {number}") for number in range(20)]
        await self.alice.redact(self.room, sent[3])
        topic = await self.alice.set_state(self.room, "m.room.topic", {"topic": "needles"})
        await self.stop_server()
        self.execute("DELETE FROM search_blocks")
        self.execute("DELETE FROM reader_positions WHERE reader = 'search_index'")

        await self.start_server()
        self.alice.url = self.url
        await self.until_indexed()

        expected = {*sent, topic} - {sent[3]}
        criteria = {"filter": {"limit": 100}}
        self.assertEqual(set(await self.found(self.alice, "needle", **criteria)), expected)

    async def test_the_index_is_rebuilt(self) -> None:
        """An operator renews the index of a running server; search goes on meanwhile."""
        old = [await self.alice.say(self.room, f"needle {number}") for number in range(3)]
        await self.indexing.written()
        before = stored_entries(self.dsn)
        self.execute("DELETE FROM search_blocks")
        new = await self.alice.say(self.room, "needle")
        self.assertEqual(await self.found(self.alice, "needle"), [new])

        for _ in range(2):
            await self.server.parts.db.run(insert_job, index_job.JOB, {}, 0)
            await self.until_indexed()
            await self.indexing.written()

            self.assertEqual(set(await self.found(self.alice, "needle")), {*old, new})
            entries = stored_entries(self.dsn)
            self.assertEqual(len(entries), len(before) + 1)
            self.assertLess(set(before), set(entries))

    async def test_an_event_that_is_indexed_again(self) -> None:
        """What is handled again after a crash is in the index once."""
        sent = [await self.alice.say(self.room, f"needle {number}") for number in range(3)]
        await self.indexing.written()
        before = stored_entries(self.dsn)
        items = (await self.server.parts.search.source.load(0, MAX_POSITION)).items

        for part in (items[-1:], items, items[:-2]):
            await self.server.parts.search.writer.write(part)
            self.assertEqual(set(stored_entries(self.dsn)), set(before))
            self.assertEqual(len(stored_entries(self.dsn)), len(before))

        self.assertEqual(set(await self.found(self.alice, "needle")), set(sent))

    async def test_a_redaction_leaves_nothing(self) -> None:
        """Of a redacted message no word can be guessed from the index, others are still found."""
        sent = [await self.alice.say(self.room, f"needle hay{number}") for number in range(3)]
        await self.indexing.written()

        await self.alice.redact(self.room, sent[1])
        await self.indexing.written()

        kept = [text_numbers(f"needle hay{number}") for number in (0, 2)]
        entries = [entry for entry in stored_entries(self.dsn) if entry.key == SearchKey.BODY]
        self.assertEqual([sorted(each.numbers) for each in entries], [*map(sorted, kept)])
        self.assertNotIn(True, await self.may_have("hay1"))
        self.assertIn(True, await self.may_have("hay2"))
        self.assertEqual(set(await self.found(self.alice, "needle")), {sent[0], sent[2]})

    async def may_have(self, word: str) -> list[bool]:
        """Of each block, whether it seems to have a word."""
        places = list(signature_places(wanted_numbers([(word, False)])))
        signatures = [row[0] for row in self.execute("SELECT signature FROM search_blocks")]
        return [
            all(bits[place // 8 % len(bits)] >> place % 8 & 1 for place in places)
            for bits in signatures
        ]

    async def test_what_is_sent_while_search_is_disabled(self) -> None:
        """A server that had no index for a while adds what is missing, and only that."""
        first = await self.alice.say(self.room, "needle")
        self.settings = {"search": {"enabled": False}}
        await self.restart_server(self.alice)
        second = await self.alice.say(self.room, "needle")
        await self.alice.redact(self.room, first)
        third = await self.alice.set_state(self.room, "m.room.name", {"name": "needle"})
        self.settings = {}

        await self.restart_server(self.alice)

        async def is_complete() -> bool:
            return set(await self.found(self.alice, "needle")) == {second, third}

        while not await is_complete():
            pass
        await self.indexing.written()
        messages = [entry for entry in stored_entries(self.dsn) if entry.key == SearchKey.BODY]
        self.assertEqual(len(messages), 1)

    async def test_a_message_that_postgresql_would_refuse(self) -> None:
        """No text keeps the index from those that follow it."""
        for text in ("\u0000 needle", "\ufffe\uffff needle", "needle " * 2_000, "'' \\ needle"):
            event_id = await self.alice.say(self.room, text)
            self.assertIn(event_id, await self.found(self.alice, "needle"))


class BackfilledTests(FederationTestCase):
    async def test_backfilled_history_is_found(self) -> None:
        """A user finds what was said before the server joined, once a user has read it."""
        there, here = await self.fake(), await self.organisation()
        bob, mallory = await here.register("bob"), there.user("mallory")
        room = there.create_room()
        old = [room.say(mallory, f"needle {number}").event_id for number in range(3)]
        room.add("m.room.topic", {"topic": "needles"}, sender=mallory, state_key="")
        await bob.join(room.room_id, via=[there.name])
        assert await found(bob, "needle") == []

        await bob.history(room.room_id)
        new = room.say(mallory, "needle")
        await there.send(here.name, [new])

        results = await found(bob, "needle", order_by="recent", keys=["content.body"])
        assert results == [new.event_id, *reversed(old)]
        assert len(await found(bob, "needle")) == 5


class ImportedTests(AppserviceTestCase):
    registrations = (registration(**{"io.homeserver.history_import": True}),)

    async def test_imported_history_is_found(self) -> None:
        """A user finds the messages that a bridge brought along, by their own time."""
        bridge, alice = self.bot(), await self.register("alice")
        room = await bridge.create_room(public=True)
        await alice.join(room)
        new = await alice.say(room, "needle")
        old = {
            "sender": "@_irc_ghost:example.org",
            "type": "m.room.message",
            "origin_server_ts": 1_500_000_000_000,
            "content": {"msgtype": "m.text", "body": "needle"},
        }
        older = {**old, "origin_server_ts": 1_400_000_000_000}
        path = "/_matrix/client/unstable/com.beeper.backfill/rooms/{}/batch_send"
        answer = await bridge.request(
            "POST", path.format(quote(room)), {"events": [older, old], "forward": False}
        )

        imported = answer["event_ids"]
        assert await found(alice, "needle", order_by="recent") == [new, *reversed(imported)]
