"""Sending: each request makes one event, and only what may be sent."""

import pytest

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import BadAlias, Forbidden, NotFound, UserSuspended
from tests.rooms.support import ALICE, BOB, RoomsTestCase


class SendingTests(RoomsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.room_id = await self.create_room()

    async def test_transaction_id_is_scoped_to_room_and_type(self) -> None:
        """The same id in another room, or for another type, is another request."""
        other = await self.create_room()
        send = self.sending.send_message

        first = await send(ALICE, self.room_id, "m.room.message", {"n": 1}, "t")
        again = await send(ALICE, self.room_id, "m.room.message", {"n": 2}, "t")
        in_other_room = await send(ALICE, other, "m.room.message", {"n": 1}, "t")
        something = await send(ALICE, self.room_id, "org.example.thing", {"n": 1}, "t")

        assert again == first
        assert len({first, in_other_room, something}) == 3

    async def test_path_and_transaction_id_are_not_run_together(self) -> None:
        """The boundary between path and id makes a difference."""
        send = self.sending.send_message

        first = await send(ALICE, self.room_id, "org.example", {}, ".thing1")
        second = await send(ALICE, self.room_id, "org.example.thing", {}, "1")

        assert first != second

    async def test_failed_request_can_be_repeated(self) -> None:
        """An id that made nothing is not used up."""
        with pytest.raises(Forbidden):
            await self.say(self.room_id, "let me in", by=BOB)
        await self.memberships.join(BOB, self.room_id)

        assert await self.say(self.room_id, "let me in", by=BOB)

    async def test_requester_without_device_sends_as_often_as_requested(self) -> None:
        """Transaction ids belong to devices."""
        nobody = Requester(ALICE.user_id, None)

        assert await self.say(self.room_id, "x", nobody) != await self.say(
            self.room_id, "x", nobody
        )

    async def test_suspended_user_redacts_only_their_own_events(self) -> None:
        """A suspended moderator may remove their own messages, and no others."""
        suspended = Requester(ALICE.user_id, "DESK", is_suspended=True)
        await self.memberships.join(BOB, self.room_id)
        own = await self.say(self.room_id, "mine")
        others = await self.say(self.room_id, "yours", by=BOB)

        await self.sending.redact(suspended, self.room_id, own, {}, "1")
        with pytest.raises(UserSuspended):
            await self.sending.redact(suspended, self.room_id, others, {}, "2")
        with pytest.raises(UserSuspended):
            await self.say(self.room_id, "again", by=suspended)

    async def test_room_must_exist(self) -> None:
        """A user who sends to an unknown room gets an error."""
        with pytest.raises(NotFound):
            await self.say("!none:example.org", "hello?")

    async def test_alias_of_another_room_is_no_canonical_one(self) -> None:
        """Names do not mislead."""
        await self.create_room(alias_name="other")
        set_state = self.sending.set_state
        kind = "m.room.canonical_alias"

        with pytest.raises(BadAlias):
            await set_state(ALICE, self.room_id, kind, "", {"alias": "#other:example.org"})
