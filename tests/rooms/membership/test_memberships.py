"""Membership: rules of the Client-Server API beyond the authorisation rules."""

import pytest

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import (
    BadState,
    Forbidden,
    GuestAccessForbidden,
    InvalidParam,
    NotFound,
    UserSuspended,
)
from homeserver.rooms.lifecycle.first_events import StateDraft
from homeserver.rooms.room.user_rooms import NotLeft
from tests.rooms.support import ALICE, BOB, CAROL, RoomsTestCase

GUEST = Requester("@12:example.org", "PUBLIC", is_guest=True)


class MembershipTests(RoomsTestCase):
    async def test_restricted_join_names_a_member_who_may_invite(self) -> None:
        """Other servers can check which member authorised the join."""
        space = await self.create_room()
        room_id = await self._restricted(space, version="11")
        await self.memberships.join(BOB, space)

        await self.memberships.join(BOB, room_id)

        content = (await self._member(room_id, BOB)).event.content
        assert content["join_authorised_via_users_server"] == ALICE.user_id

    async def test_invited_user_needs_no_authorising_member(self) -> None:
        """An invite opens a restricted room to users outside of the space too."""
        room_id = await self._restricted("!elsewhere:example.org")
        await self.memberships.invite(ALICE, room_id, BOB.user_id)

        await self.memberships.join(BOB, room_id)

        content = (await self._member(room_id, BOB)).event.content
        assert "join_authorised_via_users_server" not in content

    async def test_restricted_room_without_a_member_who_may_invite_is_closed(self) -> None:
        """The server does not sign what its users may not do."""
        space = await self.create_room()
        room_id = await self._restricted(space, power_levels={"invite": 50}, version="11")
        await self.memberships.join(BOB, space)
        await self.memberships.leave(ALICE, room_id)

        with pytest.raises(Forbidden):
            await self.memberships.join(BOB, room_id)

    async def test_members_of_the_other_room_may_join_only_while_they_are(self) -> None:
        """Leaving the space ends the right to join its rooms."""
        space = await self.create_room()
        room_id = await self._restricted(space)
        await self.memberships.join(BOB, space)
        await self.memberships.leave(BOB, space)

        with pytest.raises(Forbidden):
            await self.memberships.join(BOB, room_id)

    async def test_guests_join_where_the_room_allows_it(self) -> None:
        """Guest access is the room's choice, and its absence means no."""
        closed = await self.create_room()
        state = [StateDraft("m.room.guest_access", {"guest_access": "can_join"})]
        opened = await self.create_room(initial_state=state)

        with pytest.raises(GuestAccessForbidden):
            await self.memberships.join(GUEST, closed)
        await self.memberships.join(GUEST, opened)

        assert (await self.rooms.get(opened)).membership(GUEST.user_id) == "join"

    async def test_suspended_user_enters_no_room_and_leaves_any(self) -> None:
        """A suspension prevents new joins and no leave."""
        suspended = Requester(BOB.user_id, "PHONE", is_suspended=True)
        room_id = await self.create_room()

        with pytest.raises(UserSuspended):
            await self.memberships.join(suspended, room_id)
        with pytest.raises(UserSuspended):
            await self.memberships.knock(suspended, room_id)
        with pytest.raises(UserSuspended):
            await self.memberships.invite(suspended, room_id, CAROL.user_id)
        await self.memberships.join(BOB, room_id)
        await self.memberships.leave(suspended, room_id)

    async def test_forgotten_room_is_readable_again_after_a_rejoin(self) -> None:
        """Forgetting applies to the history before: a user who joins again reads again."""
        room_id = await self.create_room()
        await self.memberships.join(BOB, room_id)
        await self.memberships.leave(BOB, room_id)
        await self.memberships.forget(BOB, room_id)
        self.restart()
        with pytest.raises(Forbidden):
            await self.reading.state(BOB.user_id, room_id)

        await self.memberships.join(BOB, room_id)
        await self.memberships.leave(BOB, room_id)

        assert await self.reading.state(BOB.user_id, room_id)

    async def test_room_is_forgotten_only_by_those_who_left_it(self) -> None:
        """Strangers have nothing to forget, and members would lose the room."""
        room_id = await self.create_room()

        with pytest.raises(NotLeft):
            await self.memberships.forget(ALICE, room_id)
        with pytest.raises(NotFound):
            await self.memberships.forget(BOB, room_id)

    async def test_kick_and_unban_need_a_member(self) -> None:
        """A moderator gets an error for a mistyped name, and no event is made."""
        room_id = await self.create_room()

        with pytest.raises(Forbidden):
            await self.memberships.kick(ALICE, room_id, BOB.user_id)
        with pytest.raises(BadState):
            await self.memberships.unban(ALICE, room_id, BOB.user_id)
        with pytest.raises(InvalidParam):
            await self.memberships.ban(ALICE, room_id, "bob")

        assert list((await self.rooms.get(room_id)).members) == [ALICE.user_id]

    async def _restricted(self, space: str, **request: object) -> str:
        rule = {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": space}],
        }
        state = [StateDraft("m.room.join_rules", rule)]
        return await self.create_room(initial_state=state, **request)

    async def _member(self, room_id: str, caller: Requester):  # type: ignore[no-untyped-def]
        key = ("m.room.member", caller.user_id)
        return (await self.rooms.current(await self.rooms.get(room_id), [key]))[key]
