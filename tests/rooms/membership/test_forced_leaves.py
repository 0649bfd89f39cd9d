"""Users whom the server takes out of their rooms."""

from homeserver.rooms.lifecycle.first_events import StateDraft
from homeserver.rooms.membership.forced_leaves import ForcedLeaves
from tests.rooms.support import ALICE, BOB, RoomsTestCase


class ForcedLeaveTests(RoomsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.forced_leaves = ForcedLeaves(self.rooms, self.user_rooms, self.memberships)

    async def membership(self, room_id: str) -> str | None:
        """Bob's membership of a room."""
        return (await self.rooms.get(room_id)).membership(BOB.user_id)

    async def test_joined_rooms_are_left_and_invites_and_knocks_end(self) -> None:
        """No user waits for a reply from a deactivated account."""
        joined = await self.create_room()
        await self.memberships.join(BOB, joined)
        invited = await self.create_room(preset="private_chat", invite=[BOB.user_id])
        knocked = await self.create_room(initial_state=[knocking()])
        await self.memberships.knock(BOB, knocked)

        await self.forced_leaves.leave_all(BOB.user_id)

        for room_id in (joined, invited, knocked):
            self.assertEqual(await self.membership(room_id), "leave")

    async def test_bans_stay(self) -> None:
        """Closing an account is no way out of a ban."""
        room_id = await self.create_room()
        await self.memberships.ban(ALICE, room_id, BOB.user_id)

        await self.forced_leaves.leave_all(BOB.user_id)

        self.assertEqual(await self.membership(room_id), "ban")

    async def test_repeating_it_changes_nothing(self) -> None:
        """After a crash it runs again."""
        room_id = await self.create_room()
        await self.memberships.join(BOB, room_id)
        await self.forced_leaves.leave_all(BOB.user_id)
        before = self.log.position

        await self.forced_leaves.leave_all(BOB.user_id)

        self.assertEqual(self.log.position, before)

    async def test_rooms_that_are_not_in_memory_are_left_too(self) -> None:
        """Most rooms of most users are asleep."""
        room_id = await self.create_room()
        await self.memberships.join(BOB, room_id)
        self.restart()
        self.forced_leaves = ForcedLeaves(self.rooms, self.user_rooms, self.memberships)

        await self.forced_leaves.leave_all(BOB.user_id)

        self.assertEqual(await self.membership(room_id), "leave")


def knocking() -> StateDraft:
    """A room that accepts knocks."""
    return StateDraft("m.room.join_rules", {"join_rule": "knock"})
