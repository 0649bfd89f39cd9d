"""Typing: lists that expire by themselves, in memory only."""

from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Forbidden, MatrixError
from homeserver.rooms.ephemeral.typing import TypingUsers
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer


class TypingTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.server = await SyncServer.start(self.db)
        self.alice = await self.server.user("alice")
        self.bob = await self.server.user("bob")
        self.room_id = await self.server.create_room(self.alice)
        await self.server.rooms.memberships.join(self.bob, self.room_id)
        self.room = await self.server.core.registry.get(self.room_id)
        self.clock = Clock()
        self.notices = self.make()

    async def clean_up(self) -> None:
        self.notices.stop()
        await self.server.stop()
        await super().clean_up()

    def make(self, **options: Any) -> TypingUsers:
        log = self.server.log
        options = {"boot_position": log.position} | options
        notices = TypingUsers(self.server.core.registry, log, self.clock, **options)
        log.subscribe(notices.apply)
        return notices

    async def begin(self, caller: Requester, timeout_ms: int = 30_000) -> None:
        await self.notices.set(caller, self.room_id, caller.user_id, True, timeout_ms)

    async def end(self, caller: Requester) -> None:
        await self.notices.set(caller, self.room_id, caller.user_id, False, 30_000)

    def typists(self, since: int | None = None) -> list[str] | None:
        return self.notices.list_since(self.room.room_nid, since)

    async def refusal(self, kind: type[MatrixError], done: Any) -> None:
        await self.assertFailure(Deferred.fromCoroutine(done), kind)

    async def test_typing_user_is_listed_until_they_stop(self) -> None:
        """Other members see the user type and stop."""
        before = self.server.log.position

        await self.begin(self.bob)
        await self.begin(self.alice)
        self.assertEqual(self.typists(before), [self.bob.user_id, self.alice.user_id])
        between = self.server.log.position

        await self.end(self.bob)
        self.assertEqual(self.typists(between), [self.alice.user_id])

    async def test_unchanged_list_wakes_no_client(self) -> None:
        """Clients repeat the request while their user types; syncs do not return for it."""
        await self.begin(self.bob)
        position = self.server.log.position

        await self.begin(self.bob)
        await self.end(self.alice)

        self.assertIsNone(self.typists(position))
        self.assertEqual(self.server.log.position, position)

    async def test_typing_ends_at_its_timeout(self) -> None:
        """A client that lost its connection does not type permanently."""
        await self.begin(self.bob, timeout_ms=5_000)
        position = self.server.log.position

        self.clock.advance(5)
        await self.server.log.flush()

        self.assertEqual(self.typists(position), [])
        self.assertGreater(self.server.log.position, position)

    async def test_repeated_request_extends_the_timeout(self) -> None:
        """A user who continues to type is shown without interruption."""
        await self.begin(self.bob, timeout_ms=5_000)
        self.clock.advance(4)
        await self.begin(self.bob, timeout_ms=5_000)

        self.clock.advance(4)

        self.assertEqual(self.typists(), [self.bob.user_id])

    async def test_time_is_bounded(self) -> None:
        """A client cannot type for a year."""
        await self.begin(self.bob, timeout_ms=10**12)

        self.clock.advance(120)

        self.assertEqual(self.typists(), [])

    async def test_user_who_leaves_types_no_more(self) -> None:
        """Members do not wait for a message of a user who has left."""
        await self.begin(self.bob)
        position = self.server.log.position

        await self.server.rooms.memberships.leave(self.bob, self.room_id)
        await self.server.log.flush()

        self.assertEqual(self.typists(position), [])

    async def test_only_members_type_and_only_for_themselves(self) -> None:
        """A user cannot set the typing status of another user."""
        stranger = await self.server.user("stranger")
        for room_id in (self.room_id, "!unknown:example.org"):
            await self.refusal(
                Forbidden, self.notices.set(stranger, room_id, stranger.user_id, True, 30_000)
            )
        await self.refusal(
            Forbidden, self.notices.set(self.alice, self.room_id, self.bob.user_id, True, 30_000)
        )

        self.assertIsNone(self.typists())

    async def test_restart_clears_typing_that_clients_still_show(self) -> None:
        """A user who typed at the stop of the server is not shown as typing permanently."""
        seen = self.server.log.position
        await self.begin(self.bob)
        boot = self.server.log.position
        self.notices.stop()

        self.notices = self.make(boot_position=boot, recently_active=[self.room.room_nid])

        self.assertEqual(self.typists(seen), [])
        self.assertIsNone(self.typists(boot))
        self.assertIsNone(self.notices.list_since(self.room.room_nid + 1, seen))
        self.assertEqual(
            await self.notices.changed_rooms([self.room.room_nid, 99], seen), {self.room.room_nid}
        )

    async def test_readers_get_an_event(self) -> None:
        """The list has the form of the specification."""
        before = self.server.log.position
        await self.begin(self.bob)

        (event,) = await self.notices.ephemeral_events(self.room, self.alice.user_id, before)

        self.assertEqual(
            msgspec.json.decode(event),
            {"type": "m.typing", "content": {"user_ids": [self.bob.user_id]}},
        )
        now = self.server.log.position
        self.assertEqual(
            await self.notices.ephemeral_events(self.room, self.alice.user_id, now), ()
        )
