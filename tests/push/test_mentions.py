"""The index of mentions: it is complete after a crash at any time."""

from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.rooms.history import timeline_source
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
        return await SyncServer.start(self.db)

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

        await self.server.idle()
        return await self.db.run(read)

    async def test_mention_that_a_crash_lost_is_added_at_start(self) -> None:
        """The message was stored and acknowledged, but its mention was not stored yet."""
        self.server.crash_after(1)
        await self.mention(self.bob)

        self.server = await self.start_world()

        assert [user_id for user_id, _ in await self.stored()] == [self.bob.user_id]

    async def test_lost_mentions_are_added_in_batches(self) -> None:
        """Many messages may have been stored in one commit."""
        self.patch(timeline_source, "PAGE_EVENTS", 2)
        (reader,) = (each for each in self.server.readers if each.name == "mentions")
        await reader.stop()
        for _ in range(4):
            await self.mention(self.bob)
        await self.mention(whole_room=True)
        self.server.die()

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
        """The position is stored together with the mentions up to it."""
        self.server.crash_after(1)
        await self.mention(self.bob)
        self.server = await self.start_world()
        self.server.crash_after(0)
        await until(lambda: self.server.is_dead)

        self.server = await self.start_world()

        assert [user_id for user_id, _ in await self.stored()] == [self.bob.user_id]

    async def test_a_room_that_cannot_be_read_does_not_hold_up_the_others(self) -> None:
        """After a crash the mentions in all other rooms are added."""
        other = await self.server.create_room(self.alice, invite=[self.bob.user_id])
        bad = (await self.server.core.registry.get(other)).room_nid
        (reader,) = (each for each in self.server.readers if each.name == "mentions")
        await reader.stop()
        here = self.room_id
        for self.room_id in (other, here):
            await self.mention(self.bob)
        self.server.die()

        async def spoil(db: Connection) -> None:
            await db.execute("UPDATE rooms SET version = 'unknown' WHERE room = %s", (bad,))

        await self.db.run(spoil)
        self.server = await self.start_world()

        assert [user_id for user_id, _ in await self.stored()] == [self.bob.user_id]
        assert self.flushLoggedErrors(KeyError)
