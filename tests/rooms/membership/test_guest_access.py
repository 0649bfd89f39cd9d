"""Guests in rooms that take guests no more."""

from twisted.internet.defer import ensureDeferred

from homeserver.accounts.sessions.requester import Requester
from homeserver.rooms.membership.forced_leaves import ForcedLeaves
from homeserver.rooms.membership.guest_access import GuestAccess, GuestAccessSource
from homeserver.storage.accounts.users import User, insert_user
from homeserver.storage.database.database import DatabaseUnavailable
from homeserver.streams.durable_readers import RETRIES, DurableReaders
from tests.rooms.support import ALICE, BOB, SERVER, RoomsTestCase
from tests.support.reactor import until

GUEST = Requester(f"@7:{SERVER}", "GUEST", is_guest=True)


class GuestAccessTests(RoomsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        forced_leaves = ForcedLeaves(self.rooms, self.user_rooms, self.memberships)
        guest_access = GuestAccess(self.db, self.rooms, forced_leaves)
        self.readers = DurableReaders(self.log, self.db, self.clock)
        self.reader = self.readers.add_concurrent(
            "guest_access", GuestAccessSource(self.db), guest_access.remove_guests, slots=2
        )
        await self.readers.load()
        self.readers.start()
        for caller in (ALICE, BOB, GUEST):
            await self.db.run(insert_user, User(caller.user_id, 0, is_guest=caller.is_guest))
        self.room_id = await self.create_room()
        await self.set_access("can_join")
        await self.memberships.join(BOB, self.room_id)
        await self.memberships.join(GUEST, self.room_id)

    async def set_access(self, access: str) -> None:
        """Alice changes the guest access."""
        content = {"guest_access": access}
        await self.sending.set_state(ALICE, self.room_id, "m.room.guest_access", "", content)

    async def memberships_now(self) -> tuple[str | None, str | None]:
        """The memberships of Bob and the guest once nothing is in progress."""
        await until(lambda: self.reader.is_idle)
        room = await self.rooms.get(self.room_id)
        return room.membership(BOB.user_id), room.membership(GUEST.user_id)

    async def test_guests_leave_when_they_are_no_longer_wanted(self) -> None:
        """A room that closes itself to guests is rid of them; members with accounts stay."""
        await self.set_access("forbidden")

        self.assertEqual(await self.memberships_now(), ("join", "leave"))

    async def test_guests_stay_while_they_may(self) -> None:
        """Setting the same guest access again removes no guest."""
        await self.set_access("can_join")

        self.assertEqual(await self.memberships_now(), ("join", "join"))

    async def test_a_room_that_changes_its_mind_keeps_its_guests(self) -> None:
        """It is the last word that counts."""
        room = await self.rooms.get(self.room_id)
        async with self.rooms.writing(self.room_id):
            closing = ensureDeferred(self.set_access("forbidden"))
            opening = ensureDeferred(self.set_access("can_join"))
            await closing
            await opening

        self.assertEqual(await self.memberships_now(), ("join", "join"))
        self.assertEqual(room.joined_count, 3)

    async def test_guests_leave_when_the_database_is_back(self) -> None:
        """A failure in between delays it only."""
        run, failures = self.db.run, [DatabaseUnavailable("gone")]

        async def fail_once(function: object, *args: object) -> object:
            if failures and getattr(function, "__name__", "") == "guests_among":
                raise failures.pop()
            return await run(function, *args)  # type: ignore[arg-type]

        self.patch(self.db, "run", fail_once)
        await self.set_access("forbidden")
        await until(lambda: not failures)
        self.clock.advance(RETRIES.pause(1))

        self.assertEqual(await self.memberships_now(), ("join", "leave"))

    async def test_a_server_that_stops_does_not_wait_for_the_database(self) -> None:
        """An operator's stop does not wait for forced leaves."""

        async def fail(*_: object) -> object:
            raise DatabaseUnavailable("gone")

        self.patch(self.db, "run", fail)
        await self.set_access("forbidden")
        changed = self.log.position

        await self.readers.stop()

        self.assertLess(self.reader.position, changed)
        await self.log.flush()
