"""Changes during a sync are in its response or in the next: no change is lost."""

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred

from homeserver.accounts.sessions.requester import Requester
from tests.support.postgres import DatabaseTestCase
from tests.sync.client_model import ClientModel
from tests.sync.sync_server import SyncServer


class SyncPointTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        server = await SyncServer.start(self.db)
        self.alice, self.bob = await server.user("alice"), await server.user("bob")
        self.room_id = await server.create_room(self.alice, invite=[self.bob.user_id])
        await server.rooms.memberships.join(self.bob, self.room_id)
        self.client = ClientModel()
        self.before: dict[str, Any] = await server.update(self.bob)
        await server.say(self.alice, self.room_id, "hello")
        await server.stop()
        self.server = await SyncServer.start(self.db)  # nothing is in memory

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def test_initial_sync_has_a_room_in_which_the_user_gets_a_new_name_meanwhile(
        self,
    ) -> None:
        """It was left out of this answer as too new, and of the next one as known."""
        self.meanwhile(self.rename)

        self.client.apply(await self.server.update(self.bob))
        self.client.apply(await self.server.update(self.bob, self.client.since))

        await self.check_complete()

    async def test_sync_has_a_message_from_before_a_concurrent_name_change(self) -> None:
        """A message fell between two responses."""
        self.client.apply(self.before)
        self.meanwhile(self.rename)

        assert "hello" in await self.bodies_of_next_syncs()

        await self.check_complete()

    async def test_sync_has_a_message_from_before_a_concurrent_leave(self) -> None:
        """A user who leaves gets all messages sent until then."""
        self.client.apply(self.before)
        self.meanwhile(self.leave)

        assert "hello" in await self.bodies_of_next_syncs()

    async def test_membership_that_is_stored_but_not_published_is_waited_for(self) -> None:
        """The database has a change a moment before subscribers do."""
        published: Deferred[None] = Deferred()
        write = self.server.log._write

        async def write_and_wait(batch: Any) -> None:
            await write(batch)
            await published

        self.patch(self.server.log, "_write", write_and_wait)
        renaming = Deferred.fromCoroutine(self.rename())
        while not await self.is_stored():
            pass
        asked = Deferred.fromCoroutine(self.server.update(self.bob))
        for _ in range(20):
            await self.is_stored()
        published.callback(None)
        await renaming

        self.client.apply(await asked)
        self.client.apply(await self.server.update(self.bob, self.client.since))

        await self.check_complete()

    async def bodies_of_next_syncs(self) -> list[str]:
        """The messages in the timelines of the next two responses."""
        said: list[str] = []
        for _ in range(2):
            answer = await self.server.update(self.bob, self.client.since)
            self.client.apply(answer)
            for rooms in answer.get("rooms", {}).values():
                for room in rooms.values():
                    events = room.get("timeline", {}).get("events", [])
                    said += [event["content"].get("body") for event in events]
        return said

    async def rename(self) -> None:
        content = {"membership": "join", "displayname": "Robert"}
        await self.server.rooms.sending.set_state(
            self.bob, self.room_id, "m.room.member", self.bob.user_id, content
        )

    async def leave(self) -> None:
        await self.server.rooms.memberships.leave(self.bob, self.room_id)

    async def is_stored(self) -> bool:
        async def ask(db: Any) -> bool:
            cursor = await db.execute("SELECT 1 FROM events WHERE json LIKE '%Robert%'::bytea")
            return await cursor.fetchone() is not None

        return await self.db.run(ask)

    def meanwhile(self, happen: Callable[[], Awaitable[None]]) -> None:
        """Have something happen, once, while the next answer waits for the database."""
        account_data = self.server.accounts.account_data
        ask, happened = account_data.changed_since, []

        async def changed_since(user_id: str, position: int) -> Any:
            if not happened:
                happened.append(True)
                await happen()
            return await ask(user_id, position)

        self.patch(account_data, "changed_since", changed_since)
        self.patch(account_data, "may_have_changed", lambda *_: True)

    async def check_complete(self, caller: Requester | None = None) -> None:
        """The client has the same state as a new one."""
        fresh = ClientModel()
        fresh.apply(await self.server.update(caller or self.bob))
        assert self.client.state == fresh.state
