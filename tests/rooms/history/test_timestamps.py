"""Jumping to a date where clocks disagree."""

import pytest

from homeserver.protocol.errors import NotFound
from homeserver.rooms.events.event_draft import EventDraft
from homeserver.rooms.history.timestamps import TimestampRequest, Timestamps
from tests.rooms.support import ALICE, RoomsTestCase
from tests.support.no_federation import NoTimestamps


class TimestampsTests(RoomsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.timestamps = self._timestamps()
        self.room_id = await self.create_room()

    async def test_event_out_of_order_is_found_among_its_neighbours(self) -> None:
        """A sender whose clock is a little wrong does not lead the search astray."""
        stamps = [10, 20, 40, 30, 50, 60, 55, 70]
        start = self.origin.now_ms()
        for stamp in stamps:
            await self._send(start + stamp)

        for wanted in range(5, 75):
            later = [stamp for stamp in stamps if stamp >= wanted]
            earlier = [stamp for stamp in stamps if stamp <= wanted]
            if later:
                assert await self._closest(start + wanted, backwards=False) == start + min(later)
            if earlier:
                assert await self._closest(start + wanted, backwards=True) == start + max(earlier)

    async def test_search_reaches_beyond_what_is_in_memory(self) -> None:
        """A user finds last year's messages as well as yesterday's."""
        start = self.origin.now_ms()
        for stamp in range(1, 300):
            await self._send(start + stamp)

        with pytest.raises(NotFound):
            await self._closest(start + 300, backwards=False)
        assert await self._closest(start + 150, backwards=False) == start + 150
        self.restart()
        self.timestamps = self._timestamps()
        assert await self._closest(start + 150, backwards=True) == start + 150

    def _timestamps(self) -> Timestamps:
        return Timestamps(self.db, self.rooms, self.reading, self.visibility, NoTimestamps())

    async def _send(self, timestamp: int) -> None:
        async with self.rooms.writing(self.room_id) as writer:
            draft = EventDraft("m.room.message", ALICE.user_id, {}, origin_server_ts=timestamp)
            await writer.send(draft)

    async def _closest(self, timestamp: int, *, backwards: bool) -> int:
        moment = TimestampRequest(timestamp, backwards)
        found = await self.timestamps.closest(ALICE.user_id, self.room_id, moment)
        return found.event.origin_server_ts
