"""The room directory: its order, its pages, and its freshness."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from homeserver.protocol.errors import InvalidParam
from homeserver.rooms.discovery.directory import CACHE_TTL_SECONDS, DirectoryPage, DirectoryQuery
from homeserver.rooms.discovery.room_summaries import plain_topic
from homeserver.rooms.room.changes import DirectoryVisibilityChanged
from tests.rooms.support import ALICE, BOB, CAROL, RoomsTestCase


def test_plain_topic_is_taken_from_the_forms_of_the_topic() -> None:
    """The directory shows text, whatever other forms the topic has."""
    html = {"mimetype": "text/html", "body": "<b>Tea</b>"}
    plain = {"mimetype": "text/plain", "body": "Tea"}

    assert plain_topic({"m.topic": {"m.text": [html, plain]}, "topic": "Old"}) == "Tea"
    assert plain_topic({"m.topic": {"m.text": [{"body": "Tea"}]}}) == "Tea"
    assert plain_topic({"m.topic": {"m.text": [html]}, "topic": "Old"}) == "Old"
    for nonsense in ({}, {"topic": ""}, {"topic": 1}, {"m.topic": []}, {"m.topic": {"m.text": 1}}):
        assert plain_topic(nonsense) is None


class DirectoryTests(RoomsTestCase):
    async def test_largest_rooms_come_first(self) -> None:
        """Users look for rooms with many members."""
        for name, members in (("small", []), ("large", [BOB, CAROL]), ("middle", [BOB])):
            room_id = await self.create_room(published=True, name=name)
            for member in members:
                await self.memberships.join(member, room_id)
        self.clock.advance(CACHE_TTL_SECONDS)

        page = await self._page()

        assert self.names_of(page) == ["large", "middle", "small"]
        assert [room.num_joined_members for room in page.rooms] == [3, 2, 1]

    async def test_unlisted_room_does_not_shift_the_next_page(self) -> None:
        """A user who pages through the list misses no room and sees none twice."""
        rooms = [await self.create_room(published=True, name=str(n)) for n in range(4)]
        first = await self._page(limit=2)

        await self.directory.set_listed(ALICE, rooms[1], listed=False)

        second = await self._page(limit=2, since=first.next_batch)
        assert self.names_of(first) + self.names_of(second) == ["0", "1", "2", "3"]
        assert second.next_batch is None
        back = await self._page(limit=2, since=second.prev_batch)
        assert self.names_of(back) == ["0"]

    async def test_new_room_is_listed_at_once(self) -> None:
        """A user who makes a public room finds it in the list immediately."""
        assert self.names_of(await self._page()) == []

        await self.create_room(published=True, name="Tea")

        assert self.names_of(await self._page()) == ["Tea"]

    async def test_room_is_listed_once_that_is_durable(self) -> None:
        """A crash cannot take back what a user was shown."""
        room_id = await self.create_room(name="Tea")
        room = await self.rooms.get(room_id)

        listing = Deferred.fromCoroutine(self.directory.set_listed(ALICE, room_id, listed=True))

        assert not room.published
        await listing
        assert room.published
        self.restart()
        assert await self.directory.is_listed(room_id)

    async def test_other_processes_learn_which_rooms_are_listed(self) -> None:
        """A new room, and each change: nothing else tells them."""
        seen: list[Any] = []
        self.log.subscribe(seen.extend)

        listed = await self.create_room(published=True)
        await self.directory.set_listed(ALICE, listed, listed=False)
        await self.create_room()

        room = await self.rooms.get(listed)
        changes = [each for each in seen if isinstance(each, DirectoryVisibilityChanged)]
        assert [(each.room, each.published) for each in changes] == [
            (room.room_nid, True),
            (room.room_nid, False),
        ]

    async def test_repeated_requests_need_no_query(self) -> None:
        """A popular list costs next to nothing."""
        for number in range(5):
            await self.create_room(published=True, name=str(number))
        await self._page()
        before = self.db.runs

        await self._page(text="3")
        await self._page(limit=2)

        assert self.db.runs == before

    async def test_listed_rooms_are_shown_without_being_loaded(self) -> None:
        """A search over all rooms does not push those in use out of memory."""
        for number in range(3):
            await self.create_room(published=True, name=str(number))
        self.restart()

        page = await self._page(text="2")

        assert self.names_of(page) == ["2"]
        assert page.rooms[0].num_joined_members == 1
        assert len(self.rooms) == 0

    async def test_redacted_name_is_not_shown(self) -> None:
        """Redacted content disappears from the directory too."""
        room_id = await self.create_room(published=True, name="Rude")
        await self._page()
        room = await self.rooms.get(room_id)
        key = ("m.room.name", "")
        name = (await self.rooms.current(room, [key]))[key]

        await self.sending.redact(ALICE, room_id, name.event.event_id, {}, "1")

        assert self.names_of(await self._page()) == [None]

    async def test_pages_are_bounded(self) -> None:
        """Without a limit the default applies; a limit of zero is not "no limit"."""
        for number in range(3):
            await self.create_room(published=True, name=str(number))

        assert len((await self._page(limit=0)).rooms) == 3
        assert len((await self._page(limit=1_000_000)).rooms) == 3
        assert (await self._page(limit=1)).total == 3

    async def test_nonsense_is_refused(self) -> None:
        """A token of something else does not lead to a random page."""
        for token in ("", "s5", "n1", "n1_2_3", "x1_1"):
            with pytest.raises(InvalidParam):
                await self._page(since=token)

    async def _page(self, **query: object) -> DirectoryPage:
        return await self.directory.page(DirectoryQuery(**query))  # type: ignore[arg-type]

    def names_of(self, page: DirectoryPage) -> list[str | None]:
        return [room.name for room in page.rooms]
