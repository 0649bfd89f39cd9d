"""A change during a sync is in its response or in the next: together they have everything."""

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred

from homeserver.accounts.sessions.requester import Requester
from homeserver.storage.rooms.event_json import unpack_json
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
        """The room must not be left out of this response as too new, and of the next as known."""
        self.meanwhile(self.rename)

        self.client.apply(await self.server.update(self.bob))
        self.client.apply(await self.server.update(self.bob, self.client.since))

        await self.check_complete()

    async def test_sync_has_what_was_said_before_the_user_got_a_new_name_meanwhile(self) -> None:
        """A message must not fall between two responses."""
        self.client.apply(self.before)
        self.meanwhile(self.rename)

        assert "hello" in await self.bodies_of_next_syncs()

        await self.check_complete()

    async def test_sync_has_what_was_said_before_the_user_left_meanwhile(self) -> None:
        """A user who leaves gets all messages that were sent before."""
        self.client.apply(self.before)
        self.meanwhile(self.leave)

        assert "hello" in await self.bodies_of_next_syncs()

    async def test_membership_that_is_stored_but_not_published_is_waited_for(self) -> None:
        """The database has a change shortly before the log's subscribers do."""
        published: Deferred[None] = Deferred()
        write = self.server.log._write

        async def write_and_wait(batch: Any) -> None:
            await write(batch)
            await published

        self.patch(self.server.log, "_write", write_and_wait)
        renaming = Deferred.fromCoroutine(self.rename())
        while not await self.is_stored():
            pass
        request = Deferred.fromCoroutine(self.server.update(self.bob))
        for _ in range(20):
            await self.is_stored()
        published.callback(None)
        await renaming

        self.client.apply(await request)
        self.client.apply(await self.server.update(self.bob, self.client.since))

        await self.check_complete()

    async def bodies_of_next_syncs(self) -> list[str]:
        """The bodies of the messages in the next two responses."""
        said: list[str] = []
        for _ in range(2):
            response = await self.server.update(self.bob, self.client.since)
            self.client.apply(response)
            for rooms in response.get("rooms", {}).values():
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
        async def query(db: Any) -> bool:
            cursor = await db.execute("SELECT json FROM events")
            return any(b"Robert" in unpack_json(json) for (json,) in await cursor.fetchall())

        return await self.db.run(query)

    def meanwhile(self, happen: Callable[[], Awaitable[None]]) -> None:
        """Have something happen, once, while the next sync waits for the database."""
        account_data = self.server.accounts.account_data
        query, happened = account_data.changed_since, []

        async def changed_since(user_id: str, position: int) -> Any:
            if not happened:
                happened.append(True)
                await happen()
            return await query(user_id, position)

        self.patch(account_data, "changed_since", changed_since)
        self.patch(account_data, "may_have_changed", lambda *_: True)

    async def check_complete(self, caller: Requester | None = None) -> None:
        """The client has the state that an initial sync returns."""
        fresh = ClientModel()
        fresh.apply(await self.server.update(caller or self.bob))
        assert self.client.state == fresh.state
