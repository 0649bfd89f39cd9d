"""History: pages from memory and from the database, and their bounds."""

from collections.abc import Sequence
from typing import Any

import pytest

from homeserver.protocol.errors import Forbidden, InvalidParam
from homeserver.protocol.filters import RoomEventFilter
from homeserver.rooms.history.history import MAX_EXAMINED_EVENTS, MAX_LIMIT, PageRequest
from homeserver.rooms.history.visibility import VisibleEvent
from homeserver.rooms.room.room import TIMELINE_LENGTH
from tests.rooms.support import ALICE, BOB, RoomsTestCase


def texts(chunk: Sequence[VisibleEvent]) -> list[Any]:
    return [seen.stored.event.content.get("body") for seen in chunk]


def ids(chunk: Sequence[VisibleEvent]) -> list[str]:
    return [seen.stored.event.event_id for seen in chunk]


class PageTests(RoomsTestCase):
    async def test_long_history_is_read_across_the_edge_of_memory(self) -> None:
        """A client that pages back sees no difference where the events in memory end."""
        room_id = await self.create_room()
        said = [f"message {number}" for number in range(TIMELINE_LENGTH + 30)]
        for text in said:
            await self.say(room_id, text)
        room = await self.rooms.get(room_id)
        assert room.timeline_from > 0

        for size in (7, 50, 500):
            assert await self._all(room_id, backwards=True, size=size) == said[::-1]
            assert await self._all(room_id, backwards=False, size=size) == said

    async def test_newcomer_does_not_see_earlier_messages_in_either_direction(self) -> None:
        """Joined-only history hides earlier messages from users who join later."""
        room_id = await self.create_room()
        visibility = {"history_visibility": "joined"}
        await self.sending.set_state(ALICE, room_id, "m.room.history_visibility", "", visibility)
        await self.say(room_id, "secret")
        await self.memberships.join(BOB, room_id)
        await self.say(room_id, "open")

        for backwards in (True, False):
            page = await self.history.page(BOB.user_id, room_id, PageRequest(backwards, limit=50))
            said = [text for text in texts(page.chunk) if text is not None]

            assert said == ["open"]

    async def test_memory_and_database_give_the_same_pages(self) -> None:
        """A restart changes no page of history."""
        room_id = await self.create_room()
        places = []
        for number in range(20):
            await self.say(room_id, str(number))
            places.append(self.log.position)
        beyond = f"s{places[-1] + 1}"
        requests = [
            PageRequest(backwards, since, to, limit=5)
            for backwards in (True, False)
            for since in (None, f"s{places[11]}", "t12_12", "s0", "t0_0", beyond)
            for to in (None, f"s{places[8]}", "t5_5")
        ]
        pages = [await self.history.page(ALICE.user_id, room_id, ask) for ask in requests]

        room = await self.rooms.get(room_id)
        room.timeline_from = room.last_position
        newest = room.timeline[-1]
        room.timeline.clear()
        room.timeline.append(newest)

        for ask, page in zip(requests, pages, strict=True):
            stored = await self.history.page(ALICE.user_id, room_id, ask)
            assert ids(stored.chunk) == ids(page.chunk), ask
            assert (stored.start, stored.end) == (page.start, page.end), ask

    async def test_page_looks_at_a_bounded_number_of_events(self) -> None:
        """A search for a needle does not keep the server from everything else."""
        room_id = await self.create_room()
        await self.say(room_id, "needle")
        for number in range(MAX_EXAMINED_EVENTS):
            await self.sending.send_message(ALICE, room_id, "org.example.hay", {}, str(number))
        wanted = RoomEventFilter(types=("m.room.message",))

        first = await self.history.page(
            ALICE.user_id, room_id, PageRequest(True, limit=1, event_filter=wanted)
        )
        assert texts(first.chunk) == []
        assert first.end is not None
        second = await self.history.page(
            ALICE.user_id, room_id, PageRequest(True, first.end, limit=1, event_filter=wanted)
        )

        assert texts(second.chunk) == ["needle"]

    async def test_page_size_is_that_of_the_request_the_filter_or_the_default(self) -> None:
        """A client cannot request a million events in one response."""
        some = RoomEventFilter(limit=3)

        assert PageRequest(True).size == 10
        assert PageRequest(True, event_filter=some).size == 3
        assert PageRequest(True, event_filter=some, limit=5).size == 5
        assert PageRequest(True, limit=1_000_000).size == MAX_LIMIT

    async def test_user_who_left_a_busy_room_finds_their_history_quickly(self) -> None:
        """Paging skips the events after the leave, and does not scan them."""
        room_id = await self.create_room()
        await self.memberships.join(BOB, room_id)
        await self.say(room_id, "with Bob")
        await self.memberships.leave(BOB, room_id)
        for number in range(10):
            await self.say(room_id, f"without {number}")
        now = f"s{self.log.position}"

        back = await self.history.page(BOB.user_id, room_id, PageRequest(True, now, limit=2))
        forth = await self.history.page(BOB.user_id, room_id, PageRequest(False, limit=100))
        beyond = await self.history.page(BOB.user_id, room_id, PageRequest(False, forth.end))

        assert texts(back.chunk) == [None, "with Bob"]
        assert texts(forth.chunk)[-2:] == ["with Bob", None]
        assert (texts(beyond.chunk), beyond.end) == ([], None)

    async def test_rejoining_shows_shared_history_again(self) -> None:
        """A user who rejoins reads the messages sent meanwhile, if the room's history is shared."""
        room_id = await self.create_room()
        await self.memberships.join(BOB, room_id)
        await self.memberships.leave(BOB, room_id)
        await self.say(room_id, "meanwhile")
        await self.memberships.join(BOB, room_id)

        assert await self._all(room_id, backwards=True, size=10, user_id=BOB.user_id) == [
            "meanwhile"
        ]

    async def test_nonsense_is_refused(self) -> None:
        """A token of something else does not lead to a random place."""
        room_id = await self.create_room()

        for token in (
            *("", "5", "s-1", "t1", "t1_", "x1_1", "s99999999999999999999"),
            *("s9999999999999999999", "t1_9999999999999999999", "t1_1_9999999999999999999"),
        ):
            with pytest.raises(InvalidParam):
                await self.history.page(ALICE.user_id, room_id, PageRequest(True, token))
        with pytest.raises(Forbidden):
            await self.history.page(BOB.user_id, room_id, PageRequest(True))

    async def _all(
        self, room_id: str, *, backwards: bool, size: int, user_id: str = ALICE.user_id
    ) -> list[Any]:
        found: list[Any] = []
        since = None
        while True:
            ask = PageRequest(backwards, since, limit=size)
            page = await self.history.page(user_id, room_id, ask)
            assert len(page.chunk) <= size
            found += [text for text in texts(page.chunk) if text is not None]
            since = page.end
            if since is None:
                return found
