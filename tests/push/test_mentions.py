"""The index of mentions: it is complete after a crash at any time."""

from typing import Any

from twisted.internet.defer import Deferred

from homeserver.accounts.sessions.requester import Requester
from homeserver.push import mentions as subject
from homeserver.storage.database.database import Connection
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import until
from tests.sync.sync_server import SyncServer


class MentionsTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.server = await self.start_world()
        self.alice, self.bob = await self.server.user("alice"), await self.server.user("bob")
        self.room_id = await self.server.create_room(self.alice, invite=[self.bob.user_id])
        await self.server.rooms.memberships.join(self.bob, self.room_id)
        self.sent = 0

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def start_world(self) -> SyncServer:
        server = await SyncServer.start(self.db)
        await server.sync.push.start()
        return server

    async def mention(self, *users: Requester, whole_room: bool = False) -> None:
        self.sent += 1
        mentions: dict[str, Any] = {"user_ids": [user.user_id for user in users]}
        if whole_room:
            mentions = {"room": True}
        content = {"msgtype": "m.text", "body": "you", "m.mentions": mentions}
        await self.server.rooms.sending.send_message(
            self.alice, self.room_id, "m.room.message", content, f"txn{self.sent}"
        )

    async def stored(self) -> list[tuple[str, int]]:
        """(user id, position) of all mentions."""

        async def read(db: Connection) -> list[tuple[str, int]]:
            cursor = await db.execute("SELECT user_id, position FROM mentions ORDER BY position")
            return await cursor.fetchall()

        await self.server.log.flush()
        return await self.db.run(read)

    async def crash_after(self, batches: int) -> None:
        """Simulate a crash after so many more batches: no later one is written."""
        write, left = self.server.log._write, [batches]

        async def write_or_die(batch: Any) -> None:
            if not left[0]:
                await Deferred()
            left[0] -= 1
            await write(batch)

        self.patch(self.server.log, "_write", write_or_die)

    async def test_mention_that_a_crash_lost_is_added_at_start(self) -> None:
        """The message was stored and acknowledged, but its mention was not stored yet."""
        await self.crash_after(1)
        await self.mention(self.bob)

        self.server = await self.start_world()

        assert [user_id for user_id, _ in await self.stored()] == [self.bob.user_id]

    async def test_lost_mentions_are_added_in_batches(self) -> None:
        """Many messages may have been stored in one commit."""
        self.patch(subject, "REPLAY_BATCH_SIZE", 2)
        self.server.log._subscribers.remove(self.server.sync.push._mentions.apply)
        for _ in range(4):
            await self.mention(self.bob)
        await self.mention(whole_room=True)

        self.server = await self.start_world()

        names = [user_id for user_id, _ in await self.stored()]
        assert sorted(names) == ["", *[self.bob.user_id] * 4]

    async def test_start_after_a_normal_stop_changes_nothing(self) -> None:
        """Each mention is stored once."""
        await self.mention(self.bob)
        before = await self.stored()
        await self.server.stop()

        self.server = await self.start_world()

        assert await self.stored() == before
        assert len(before) == 1

    async def test_crash_during_start_loses_no_mention(self) -> None:
        """The position is stored only after the mentions up to it."""
        await self.crash_after(1)
        await self.mention(self.bob)
        self.server = await SyncServer.start(self.db)
        await self.crash_after(0)
        starting = Deferred.fromCoroutine(self.server.sync.push.start())
        await until(lambda: self.server.log.stalled_seconds > 0)
        assert not starting.called

        self.server = await self.start_world()

        assert [user_id for user_id, _ in await self.stored()] == [self.bob.user_id]

    async def test_position_is_stored_without_mentions(self) -> None:
        """A start reads a few thousand positions, not all since the last mention."""
        self.patch(subject, "SAVE_POSITION_EVERY", 3)
        said_at = self.server.log.position
        for _ in range(5):
            await self.server.say(self.alice, self.room_id, "hello")
        await self.server.log.flush()

        position = await self.db.run(subject.reader_position, subject.SUBSCRIBER)

        assert position is not None
        assert position > said_at
