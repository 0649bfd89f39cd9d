"""Profile changes in member events: which rooms, when, and concurrent changes."""

from typing import Any

from twisted.internet.defer import ensureDeferred

from homeserver.concurrency.retry_pauses import Stopped
from homeserver.rooms.events.event_draft import member_draft
from homeserver.rooms.membership.profile_propagation import (
    MAX_AWAITED_ROOMS,
    MemberProfileChanged,
    ProfilePropagation,
)
from homeserver.rooms.room.changes import EventAppended
from tests.rooms.support import ALICE, BOB, RoomsTestCase


class Names:
    """Profiles that the test changes as it likes."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}

    async def member_fields(self, user_id: str) -> dict[str, str]:
        return dict(self.fields)


class PropagationTests(RoomsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.names_of = Names()
        self.is_stopping = False
        self.propagation = ProfilePropagation(
            self.rooms, self.user_rooms, self.names_of, self.check_running
        )
        self.sent: list[EventAppended] = []

    def check_running(self) -> None:
        if self.is_stopping:
            raise Stopped

    async def rename(self, name: str) -> None:
        """Alice takes another name."""
        self.names_of.fields = {"displayname": name}
        await self.propagation.profile_changed(ALICE.user_id, "displayname")

    async def member(self, room_id: str, user_id: str = ALICE.user_id) -> dict[str, Any]:
        """The content of a member event."""
        key = ("m.room.member", user_id)
        room = await self.rooms.get(room_id)
        return (await self.rooms.current(room, [key]))[key].event.content

    async def send_member(self, room_id: str, content: dict[str, Any]) -> None:
        """Alice sends a member event of her own making."""
        async with self.rooms.writing(room_id) as writer:
            await writer.send(member_draft(ALICE.user_id, ALICE.user_id, content))

    async def test_a_new_name_is_in_every_room_before_the_response(self) -> None:
        """Other members see the name immediately, in all rooms of the user."""
        rooms = [await self.create_room() for _ in range(3)]

        await self.rename("Alice")

        for room_id in rooms:
            expected = {"membership": "join", "displayname": "Alice"}
            self.assertEqual(await self.member(room_id), expected)

    async def test_a_removed_name_is_removed_from_rooms(self) -> None:
        """A user who deletes their name no longer has it in rooms."""
        room_id = await self.create_room()
        await self.rename("Alice")
        self.names_of.fields = {}

        await self.propagation.profile_changed(ALICE.user_id, "displayname")

        self.assertEqual(await self.member(room_id), {"membership": "join"})

    async def test_fields_of_the_join_are_not_repeated(self) -> None:
        """A new name is no new join by another user's authority; other content stays."""
        room_id = await self.create_room()
        await self.send_member(
            room_id, {"membership": "join", "reason": "Tea", "org.example.colour": "red"}
        )

        await self.rename("Alice")

        self.assertEqual(
            await self.member(room_id),
            {"membership": "join", "displayname": "Alice", "org.example.colour": "red"},
        )

    async def test_rooms_that_were_left_stay_unchanged(self) -> None:
        """A user does not rejoin by changing their name, not even a public room."""
        room_id = await self.create_room()
        await self.memberships.join(BOB, room_id)
        await self.memberships.leave(ALICE, room_id)

        await self.rename("Alice")

        self.assertEqual(await self.member(room_id), {"membership": "leave"})

    async def test_other_fields_change_no_room(self) -> None:
        """Most fields of a profile are not in member events."""
        await self.create_room()
        before = self.log.position

        await self.propagation.profile_changed(ALICE.user_id, "m.tz")

        self.assertEqual(self.log.position, before)

    async def test_a_room_that_refuses_does_not_stop_the_others(self) -> None:
        """A name too long for one room still changes in the next."""
        first = await self.create_room()
        second = await self.create_room()
        await self.send_member(first, {"membership": "join", "org.example.long": "x" * 64_000})

        await self.rename("A" * 2_000)

        self.assertNotIn("displayname", await self.member(first))
        self.assertEqual((await self.member(second))["displayname"], "A" * 2_000)

    async def test_a_user_who_leaves_meanwhile_stays_out(self) -> None:
        """The membership at the moment of the event decides, not an earlier one."""
        room_id = await self.create_room()
        await self.memberships.join(BOB, room_id)
        self.restart()
        self.propagation = ProfilePropagation(
            self.rooms, self.user_rooms, self.names_of, self.check_running
        )
        await self.user_rooms.of(ALICE.user_id)

        renaming = ensureDeferred(self.rename("Alice"))
        leaving = ensureDeferred(self.memberships.leave(ALICE, room_id))
        await renaming
        await leaving

        self.assertEqual((await self.member(room_id))["membership"], "leave")

    async def test_with_many_rooms_the_response_does_not_wait_for_all(self) -> None:
        """A user in thousands of rooms gets a response; the rooms follow."""
        rooms = [await self.create_room() for _ in range(MAX_AWAITED_ROOMS + 3)]

        await self.rename("Alice")

        names = [(await self.member(room_id)).get("displayname") for room_id in rooms]
        self.assertEqual(names[:MAX_AWAITED_ROOMS], ["Alice"] * MAX_AWAITED_ROOMS)
        self.assertIsNone(names[-1])
        await self.propagation.renew_all(MemberProfileChanged(1, ALICE.user_id))
        self.assertEqual((await self.member(rooms[-1]))["displayname"], "Alice")

    async def test_rooms_that_wait_get_the_newest_name_once(self) -> None:
        """A user who tries out names does not flood their rooms."""
        rooms = [await self.create_room() for _ in range(MAX_AWAITED_ROOMS + 3)]
        last = (await self.rooms.get(rooms[-1])).room_nid
        self.log.subscribe(self.sent.extend)

        await self.rename("Alice")
        first = ensureDeferred(self.propagation.renew_all(MemberProfileChanged(1, ALICE.user_id)))
        await self.rename("Alicia")
        await self.propagation.renew_all(MemberProfileChanged(2, ALICE.user_id))
        await first

        in_last = [fact for fact in self.sent if fact.room_nid == last]
        self.assertEqual(len(in_last), 1)
        self.assertEqual((await self.member(rooms[-1]))["displayname"], "Alicia")

    async def test_stopping_finishes_the_current_room_and_begins_no_other(self) -> None:
        """A server that stops does not wait for thousands of rooms."""
        rooms = [await self.create_room() for _ in range(MAX_AWAITED_ROOMS + 5)]
        await self.rename("Alice")
        self.is_stopping = True

        with self.assertRaises(Stopped):
            await self.propagation.renew_all(MemberProfileChanged(1, ALICE.user_id))

        self.assertNotIn("displayname", await self.member(rooms[-1]))
