"""What readers of a room find of imported messages, beside its pages."""

from homeserver.protocol.filters import RoomEventFilter
from homeserver.rooms.history.history import PageRequest
from homeserver.rooms.history.timestamps import TimestampRequest, Timestamps
from tests.rooms.history_import.support import GHOST, ImportTestCase, old
from tests.rooms.support import ALICE, Requester
from tests.support.no_federation import NoTimestamps

LAZY = RoomEventFilter(lazy_load_members=True)


class TimestampTests(ImportTestCase):
    async def test_client_jumps_to_a_date_in_the_imported_past(self) -> None:
        """However much was imported, in however many batches, before what was said here."""
        for first in (2_001, 1_001, 1):
            if first == 2_001:
                await self.say(self.room_id, "new")
            await self.put(*[old(str(ts), ts) for ts in range(first, first + 1_000)])
        timestamps = Timestamps(self.db, self.rooms, self.reading, self.visibility, NoTimestamps())

        for wanted in (1, 2, 150, 999, 1_000, 1_001, 2_500, 2_999, 3_000):
            for backwards in (True, False):
                moment = TimestampRequest(wanted, backwards)
                found = await timestamps.closest(ALICE.user_id, self.room_id, moment)
                assert found.event.origin_server_ts == wanted
        after = await timestamps.closest(
            ALICE.user_id, self.room_id, TimestampRequest(3_001, backwards=False)
        )
        before = await timestamps.closest(
            ALICE.user_id, self.room_id, TimestampRequest(3_001, backwards=True)
        )
        assert after.event.origin_server_ts == self.origin.now_ms()
        assert before.event.origin_server_ts == 3_000


class MemberTests(ImportTestCase):
    async def test_page_has_the_members_who_joined_after_what_they_said(self) -> None:
        """A ghost joins when the bridge comes; its old messages are shown with its name."""
        await self.say(self.room_id, "new")
        await self.memberships.join(Requester(GHOST, None), self.room_id)
        (event_id,) = await self.put("old")
        ask = PageRequest(True, limit=100, event_filter=LAZY)

        page = await self.history.page(ALICE.user_id, self.room_id, ask)
        context = await self.history.context(ALICE.user_id, self.room_id, event_id, ask)

        assert GHOST in {stored.event.state_key for stored in page.state}
        members = [
            stored.event.state_key
            for stored in context.state
            if stored.event.type == "m.room.member"
        ]
        assert GHOST in members
        assert len(members) == len(set(members))


class RelationTests(ImportTestCase):
    async def test_event_has_neighbours_in_the_order_of_history(self) -> None:
        """`/context` of an imported event, and of its neighbours."""
        new = await self.say(self.room_id, "new")
        ids = await self.put(*[str(number) for number in range(6)])
        ask = PageRequest(True, limit=4)

        context = await self.history.context(ALICE.user_id, self.room_id, ids[3], ask)
        of_new = await self.history.context(ALICE.user_id, self.room_id, new, ask)

        assert [seen.stored.event.event_id for seen in context.before] == [ids[2], ids[1]]
        assert [seen.stored.event.event_id for seen in context.after] == [ids[4], ids[5]]
        assert [seen.stored.event.event_id for seen in of_new.before] == [ids[5], ids[4]]
