"""What clients that sync notice of imported messages: as little as the bridge asked for."""

from typing import Any

from twisted.internet.defer import Deferred

from homeserver.rooms.events.imported_events import OldMessage
from homeserver.rooms.history.history import PageRequest
from homeserver.rooms.history_import.history_import import HistoryImport
from homeserver.rooms.history_import.import_request import ImportRequest
from homeserver.storage.accounts.users import User, insert_user
from tests.rooms.history_import.support import BRIDGE, GHOST, chosen, find_importer
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import until
from tests.sync.sync_server import SyncServer


class ImportsInSyncTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.db.run(insert_user, User(BRIDGE.user_id, 0))
        await self._start()
        self.alice = await self.server.user("alice")
        self.room_id = await self.server.create_room(BRIDGE)
        await self.server.rooms.memberships.join(self.alice, self.room_id)

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def _start(self) -> None:
        self.server = await SyncServer.start(self.db)
        registry, receipts = self.server.core.registry, self.server.sync.receipts
        self.imports = HistoryImport(self.db, registry, receipts, find_importer)

    async def restart(self) -> None:
        await self.server.stop()
        await self._start()

    async def put(self, *contents: dict[str, Any], **options: Any) -> list[str]:
        messages = [
            OldMessage("m.room.message", GHOST, {"msgtype": "m.text", "body": "old"} | content, ts)
            for ts, content in enumerate(contents)
        ]
        return await self.put_messages(*messages, **options)

    async def put_messages(self, *messages: OldMessage, **options: Any) -> list[str]:
        return await self.imports.insert(BRIDGE, self.room_id, ImportRequest(messages, **options))

    async def unread(self) -> tuple[int, int]:
        room = await self.server.core.registry.get(self.room_id)
        unread_counts = self.server.sync.push.unread_counts
        count = await unread_counts.counts(room, self.alice.user_id)
        return count.notification, count.highlight

    async def section(self, since: str | None, **options: Any) -> dict[str, Any] | None:
        response = await self.server.update(self.alice, since, **options)
        section: dict[str, Any] | None = response.get("rooms", {}).get("join", {}).get(self.room_id)
        return section

    async def test_insertion_into_the_past_is_in_no_sync(self) -> None:
        """No client wakes, and no badge changes."""
        await self.server.say(BRIDGE, self.room_id, "new")
        since = (await self.server.update(self.alice))["next_batch"]
        mention = {"m.mentions": {"user_ids": [self.alice.user_id]}}

        await self.put(mention, {})

        assert await self.section(since) is None
        assert await self.unread() == (1, 0)
        await self.restart()
        assert await self.section(since) is None
        assert await self.unread() == (1, 0)

    async def test_fresh_client_pages_back_to_what_was_inserted(self) -> None:
        """Its timeline does not reach beyond the place, even if it could."""
        first = await self.server.say(BRIDGE, self.room_id, "new 1")
        last = await self.server.say(BRIDGE, self.room_id, "new 2")
        await self.put({}, {})

        for _ in range(2):
            section = await self.section(None)
            assert section is not None
            timeline = section["timeline"]
            assert [event["event_id"] for event in timeline["events"]] == [first, last]
            assert timeline["limited"]
            types = {event["type"] for event in section["state"]["events"]}
            assert {"m.room.create", "m.room.member", "m.room.power_levels"} <= types
            await self.restart()

    async def test_missed_messages_are_shown_without_notification(self) -> None:
        """They were read in the other network, or are too old to disturb anybody."""
        mention = {"m.mentions": {"user_ids": [self.alice.user_id]}}
        await self.server.say(BRIDGE, self.room_id, "new")
        since = (await self.server.update(self.alice))["next_batch"]
        assert await self.unread() == (1, 0)

        ids = await self.put({}, mention, {}, forward=True)

        section = await self.section(since)
        assert section is not None
        assert [event["event_id"] for event in section["timeline"]["events"]] == ids
        assert not section["timeline"]["limited"]
        assert await self.unread() == (1, 0)
        await self.restart()
        assert await self.unread() == (1, 0)
        await self.server.say(BRIDGE, self.room_id, "newest")
        assert await self.unread() == (2, 0)
        notifications = self.server.sync.push._notifications
        page = await notifications.page(self.alice.user_id, limit=10)
        assert len(page.notifications) == 2

    async def test_missed_messages_notify_if_the_bridge_wants_it(self) -> None:
        """Messages that nobody has seen yet are like others."""
        mention = {"m.mentions": {"user_ids": [self.alice.user_id]}}

        await self.put({}, mention, forward=True, notify=True)

        assert await self.unread() == (2, 1)
        await self.restart()
        assert await self.unread() == (2, 1)

    async def test_users_own_old_message_reads_nothing(self) -> None:
        """What is unread stays unread, though the user has said something long before."""
        await self.server.say(BRIDGE, self.room_id, "new")
        assert await self.unread() == (1, 0)
        covered = f"@ghost_2:{self.alice.user_id.partition(':')[2]}"
        await self.server.user("ghost_2")

        await self.put_messages(OldMessage("m.room.message", covered, {}, 1), forward=True)

        assert await self.unread() == (1, 0)

    async def test_bridge_marks_as_read_what_was_read_elsewhere(self) -> None:
        """A user has read the chat in the other network: the badge goes, privately."""
        await self.server.say(BRIDGE, self.room_id, "new")
        assert await self.unread() == (1, 0)

        await self.put({}, forward=True, mark_read_by=self.alice.user_id)

        assert await self.unread() == (0, 0)

    async def test_edits_reactions_and_threads_are_imported(self) -> None:
        """They are bundled with what they refer to, within a batch and across batches."""
        await self.server.say(BRIDGE, self.room_id, "new")
        root, edit, reply = chosen("root"), chosen("edit"), chosen("reply")
        relations: list[tuple[str, str, dict[str, Any]]] = [
            (root, "m.room.message", {"body": "root"}),
            (
                edit,
                "m.room.message",
                {
                    "body": "* better",
                    "m.new_content": {"body": "better"},
                    "m.relates_to": {"rel_type": "m.replace", "event_id": root},
                },
            ),
            (
                reply,
                "m.room.message",
                {"body": "reply", "m.relates_to": {"rel_type": "m.thread", "event_id": root}},
            ),
        ]
        await self.put_messages(
            *[
                OldMessage(event_type, GHOST, content, ts, event_id)
                for ts, (event_id, event_type, content) in enumerate(relations)
            ]
        )

        seen = await self.server.rooms.reader.event(self.alice.user_id, self.room_id, root)
        (bundled,) = await self.server.rooms.relations.bundled(self.alice, (), [seen])
        threads = await self.server.rooms._threads.page(
            self.alice,
            self.room_id,
            include="all",
            since=None,
            limit=None,
            ignored=frozenset(),
        )

        assert bundled.relations is not None
        assert edit.encode() in bundled.relations
        assert reply.encode() in bundled.relations
        assert [each.stored.event.event_id for each in threads.chunk] == [root]

    async def test_crash_leaves_all_of_a_batch_or_nothing(self) -> None:
        """After the next start the bridge repeats its request, and nothing comes twice."""
        await self.server.say(BRIDGE, self.room_id, "new")
        expected = 0
        for forward in (False, True):
            for batches in range(3):
                expected += 20
                messages = [
                    OldMessage("m.room.message", GHOST, {"body": "old"}, expected + number)
                    for number in range(20)
                ]
                self.server.crash_after(batches)
                attempt = Deferred.fromCoroutine(self.put_messages(*messages, forward=forward))
                await until(lambda attempt=attempt: self.server.is_dead or attempt.called)
                self.server.die()
                await self._start()
                found = await self._imported()
                assert found in (expected - 20, expected)

                ids = await self.put_messages(*messages, forward=forward)

                assert len(ids) == 20
                assert await self._imported() == expected

    async def _imported(self) -> int:
        """The number of imported messages that Alice pages back to."""
        found, since = 0, None
        while True:
            ask = PageRequest(True, since, limit=100)
            history = self.server.rooms.history
            page = await history.page(self.alice.user_id, self.room_id, ask)
            found += sum(seen.stored.event.sender == GHOST for seen in page.chunk)
            if page.end is None:
                return found
            since = page.end
