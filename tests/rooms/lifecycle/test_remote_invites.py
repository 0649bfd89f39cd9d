"""Invites of new rooms that need another server: none is lost, whenever the process is killed."""

from typing import Any

from twisted.internet.defer import Deferred

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import NotFound, Unavailable
from homeserver.rooms.membership.third_party_invites import InvitedAddress
from homeserver.storage.accounts.users import User, deactivate_user, insert_user
from homeserver.storage.database.database import Connection
from homeserver.storage.rooms.unsent_invites import UnsentInvite, unsent_invites
from tests.rooms.support import ALICE, SERVER, RoomsTestCase
from tests.support.reactor import until

USERS = [f"@{name}:remote.example" for name in ("bob", "carol", "dave")]
ADDRESS = InvitedAddress("id.example", "token", "email", "eve@mail.example")


class RemoteInvitesTests(RoomsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.db.run(insert_user, User(ALICE.user_id, 0))
        self.sent: list[Any] = []
        self.outcomes: dict[str, Exception] = {}
        self.dies_at: int | None = None  # the number of invites that are sent before
        self.is_dead = False
        self.observe()

    def observe(self) -> None:
        """Record what this process sends."""
        self.patch(self.remote_invites, "_invite_user", self.invite_user)
        self.patch(self.remote_invites, "_invite_address", self.invite_address)

    async def invite_user(
        self, caller: Requester, room_id: str, user_id: str, *, is_direct: bool
    ) -> None:
        await self.invite(user_id)
        if user_id in self.outcomes:
            raise self.outcomes.pop(user_id)
        assert (caller.user_id, is_direct) == (ALICE.user_id, True)

    async def invite_address(self, _: Requester, room_id: str, invited: InvitedAddress) -> None:
        await self.invite(invited)

    async def invite(self, invited: Any) -> None:
        if len(self.sent) == self.dies_at:
            self.is_dead = True
            await Deferred()
        self.sent.append(invited)

    async def create(self) -> str:
        self.clock.advance(1)
        return await self.create_room(
            invite=[*USERS, f"@local:{SERVER}"], invite_addresses=[ADDRESS], is_direct=True
        )

    async def unsent(self) -> list[UnsentInvite]:
        return await self.db.run(unsent_invites, 100)

    async def begin_again(self) -> None:
        """The next process sends what is left."""
        self.dies_at, self.is_dead = None, False
        self.restart()
        self.observe()
        await self.resume()

    async def resume(self) -> None:
        """Let one run of the periodic task pass."""
        self.remote_invites.start()
        await until(lambda: not self.remote_invites._resuming._is_running)
        await self.remote_invites.stop()

    async def test_a_request_waits_for_its_invites(self) -> None:
        """The client finds everybody invited, and nothing is left to do."""
        await self.create()

        self.assertEqual(self.sent, [*USERS, ADDRESS])
        self.assertEqual(await self.unsent(), [])

    async def test_what_a_killed_process_did_not_send_is_sent_by_the_next(self) -> None:
        """Killed before any of them, each is sent; those that were sent are not sent again."""
        for dies_at in range(len(USERS) + 1):
            with self.subTest(f"killed after {dies_at}"):
                self.sent.clear()
                self.dies_at = dies_at
                creating = Deferred.fromCoroutine(self.create())
                await until(lambda: self.is_dead)
                self.assertFalse(creating.called)

                await self.begin_again()

                self.assertEqual(self.sent, [*USERS, ADDRESS])
                self.assertEqual(await self.unsent(), [])

    async def test_a_refused_invite_is_not_repeated(self) -> None:
        """A server that does not accept an invite is not sent it again and again."""
        self.outcomes[USERS[0]] = NotFound("no such user")
        await self.create()
        await self.begin_again()

        self.assertEqual(self.sent, [*USERS, ADDRESS])

    async def test_an_invite_that_could_not_be_stored_is_repeated(self) -> None:
        """The database was unavailable for a moment."""
        self.outcomes[USERS[1]] = Unavailable("gone")
        await self.create()
        self.assertEqual([invite.user_id for invite in await self.unsent()], [USERS[1]])

        await self.begin_again()

        self.assertEqual(self.sent[-1], USERS[1])
        self.assertEqual(await self.unsent(), [])

    async def test_nobody_is_invited_by_a_user_who_is_gone(self) -> None:
        """The account was deactivated while the server was stopped."""
        self.dies_at = 0
        Deferred.fromCoroutine(self.create())
        await until(lambda: self.is_dead)

        async def deactivate(db: Connection) -> None:
            await deactivate_user(db, ALICE.user_id, False)

        await self.db.run(deactivate)
        await self.begin_again()

        self.assertEqual(self.sent, [])
        self.assertEqual(await self.unsent(), [])

    async def test_a_room_of_a_request_in_progress_is_left_alone(self) -> None:
        """Nobody gets two invites because a server is slow."""
        self.dies_at = 1
        Deferred.fromCoroutine(self.create())
        await until(lambda: self.is_dead)
        self.dies_at = None

        await self.resume()

        self.assertEqual(self.sent, USERS[:1])

    async def test_an_invite_that_fails_unexpectedly_does_not_hold_up_the_others(self) -> None:
        """A defect that one invite meets is logged, once, and the rest are sent."""
        self.dies_at = 0
        Deferred.fromCoroutine(self.create())
        await until(lambda: self.is_dead)
        self.outcomes[USERS[0]] = ValueError("defect")

        await self.begin_again()

        self.assertEqual(self.sent, [*USERS, ADDRESS])
        self.assertEqual(await self.unsent(), [])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
