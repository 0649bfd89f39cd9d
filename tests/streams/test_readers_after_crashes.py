"""What follows from an acknowledged change happens, whenever the process is killed.

A scene is a change with what follows from it. It is played again and again, and killed after its
first commit, after its second one, and so on, until it comes to its end without; each time the next
process has to finish it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.status.deactivation import Deactivation
from homeserver.accounts.user_data.tags import Tags
from homeserver.rooms.membership import profile_propagation
from homeserver.storage.accounts.users import User, insert_user, unfinished_deactivations
from homeserver.storage.database.database import Connection
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import until
from tests.sync.sync_server import SERVER, SyncServer

MAX_COMMITS = 30
Change = Callable[[SyncServer], Awaitable[Any]]


class CrashTestCase(DatabaseTestCase):
    timeout = 240

    async def setUp(self) -> None:
        await super().setUp()
        self.server = await SyncServer.start(self.db)
        self.alice = await self.server.user("alice")
        self.bob = await self.server.user("bob")

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def play(
        self, prepare: Callable[[], Awaitable[Any]], change: Change, check: Change
    ) -> int:
        """Play a scene with a crash after each of its commits, and check it; gives their number."""
        for commits in range(1, MAX_COMMITS):
            await prepare()
            await self.server.idle()
            self.server.crash_after(commits)
            server = self.server
            changing = Deferred.fromCoroutine(_coroutine(change(server)))
            await until(lambda: bool(server.is_dead or changing.called))  # noqa: B023
            await server.idle()
            has_ended = not server.is_dead
            server.die()
            self.server = await SyncServer.start(self.db)
            await self.server.idle()
            with self.subTest(f"killed after commit {commits}"):
                await check(self.server)
            if has_ended:
                return commits
        raise AssertionError("the scene does not end")


async def _coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class ReaderCrashTests(CrashTestCase):
    async def test_mentions(self) -> None:
        """A user learns of each mention."""
        room_id = await self.server.create_room(self.alice, invite=[self.bob.user_id])
        await self.server.rooms.memberships.join(self.bob, room_id)
        number = [0]

        async def prepare() -> None:
            number[0] += 1

        async def change(server: SyncServer) -> None:
            content = {"body": "you", "m.mentions": {"user_ids": [self.bob.user_id]}}
            await server.rooms.sending.send_message(
                self.alice, room_id, "m.room.message", content, f"mention {number[0]}"
            )

        async def check(_: SyncServer) -> None:
            self.assertEqual(await self.db.run(_count, "mentions"), number[0])

        self.assertEqual(await self.play(prepare, change, check), 2)

    async def test_guests(self) -> None:
        """No guest stays in a room that forbids guests."""
        guests = [Requester(f"@{number}:{SERVER}", "GUEST", is_guest=True) for number in range(3)]
        for guest in guests:
            await self.db.run(insert_user, User(guest.user_id, 0, is_guest=True))
        room_id = await self.server.create_room(self.alice)

        async def set_access(server: SyncServer, access: str) -> None:
            content = {"guest_access": access}
            await server.rooms.sending.set_state(
                self.alice, room_id, "m.room.guest_access", "", content
            )

        async def prepare() -> None:
            await set_access(self.server, "can_join")
            for guest in guests:
                await self.server.rooms.memberships.join(guest, room_id)

        async def check(server: SyncServer) -> None:
            room = await server.core.registry.get(room_id)
            places = {room.membership(guest.user_id) for guest in guests}
            self.assertEqual(places, {"leave"})

        commits = await self.play(prepare, lambda server: set_access(server, "forbidden"), check)
        self.assertGreater(commits, len(guests))

    async def test_profiles(self) -> None:
        """A new name is in every room of the user, beyond those that a request waits for."""
        self.patch(profile_propagation, "MAX_AWAITED_ROOMS", 1)
        rooms = [await self.server.create_room(self.alice) for _ in range(4)]
        number = [0]

        async def prepare() -> None:
            number[0] += 1

        async def change(server: SyncServer) -> None:
            name = msgspec.json.encode(f"Alice {number[0]}")
            await server.accounts.local_profiles.write(self.alice.user_id, "displayname", name)
            propagation = server.rooms.profile_propagation
            await propagation.profile_changed(self.alice.user_id, "displayname")

        async def check(server: SyncServer) -> None:
            key = ("m.room.member", self.alice.user_id)
            for room_id in rooms:
                room = await server.core.registry.get(room_id)
                member = (await server.core.registry.current(room, [key]))[key]
                self.assertEqual(member.event.content["displayname"], f"Alice {number[0]}")

        self.assertGreater(await self.play(prepare, change, check), len(rooms))

    async def test_upgrades(self) -> None:
        """Tags, direct chats and push rules follow a user into the room that replaces theirs."""
        rooms: list[str] = []

        async def prepare() -> None:
            server = self.server
            old = await server.create_room(self.alice)
            await server.rooms.memberships.join(self.bob, old)
            await Tags(server.accounts.account_data).put(self.bob.user_id, old, "m.favourite", {})
            direct = msgspec.json.encode({self.alice.user_id: [old]})
            await server.accounts.account_data.set(self.bob.user_id, None, "m.direct", direct)
            new = await server.create_room(
                self.alice, creation_content={"predecessor": {"room_id": old}}
            )
            tombstone = {"body": "moved", "replacement_room": new}
            await server.rooms.sending.set_state(self.alice, old, "m.room.tombstone", "", tombstone)
            rooms[:] = [old, new]

        async def check(server: SyncServer) -> None:
            account_data = server.accounts.account_data
            tags = await Tags(account_data).of_room(self.bob.user_id, rooms[1])
            self.assertEqual(tags, {"m.favourite": {}})
            direct = msgspec.json.decode(
                await account_data.content(self.bob.user_id, "m.direct") or b"{}"
            )
            self.assertEqual(direct, {self.alice.user_id: rooms})

        commits = await self.play(
            prepare, lambda server: server.rooms.memberships.join(self.bob, rooms[1]), check
        )
        self.assertGreater(commits, 2)


class DeactivationCrashTests(CrashTestCase):
    async def test_forced_leaves(self) -> None:
        """A deactivated user is in no room: the database has a mark until all is done."""
        rooms = [await self.server.create_room(self.alice) for _ in range(3)]
        users: list[Requester] = []

        async def prepare() -> None:
            users.append(await self.server.user(f"user{len(users)}"))
            for room_id in rooms:
                await self.server.rooms.memberships.join(users[-1], room_id)

        async def check(server: SyncServer) -> None:
            await deactivation_of(server).finish_all()
            for room_id in rooms:
                room = await server.core.registry.get(room_id)
                self.assertEqual(room.membership(users[-1].user_id), "leave")
            self.assertEqual(await self.db.run(unfinished_deactivations), [])

        commits = await self.play(
            prepare,
            lambda server: deactivation_of(server).deactivate(users[-1].user_id, erase=False),
            check,
        )
        self.assertGreaterEqual(commits, len(rooms))


def deactivation_of(server: SyncServer) -> Deactivation:
    """The object that deactivates accounts of a server."""
    accounts = server.accounts
    return Deactivation(
        server.db,
        server.readers_clock,
        accounts.sessions,
        accounts.local_profiles,
        accounts.account_data,
        [server.rooms.forced_leaves.deactivated],
    )


async def _count(db: Connection, table: str) -> int:
    cursor = await db.execute(f"SELECT count(*) FROM {table}".encode())
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
