"""Rooms that are loaded together, and what a room keeps in memory."""

import gc
import weakref
from itertools import product
from unittest.mock import patch

from twisted.internet.defer import Deferred

from homeserver.rooms.room import registry, room_loader
from homeserver.rooms.room.room import SHORT_TIMELINE, Room
from tests.rooms.support import BOB, RoomsTestCase


def shown(room: Room) -> object:
    """What readers see of a room."""
    return (
        room.room_id,
        room.state,
        room.member_events,
        room.members,
        room.joined_servers,
        [stored.event.event_id for stored in room.timeline],
        (room.timeline_from, room.last_position, room.changes_from),
    )


class RoomLoadingTests(RoomsTestCase):
    async def make_rooms(self, count: int) -> list[int]:
        """Rooms with two members and a message each; the server starts again."""
        nids = []
        for number in range(count):
            room_id = await self.create_room()
            await self.memberships.join(BOB, room_id)
            await self.say(room_id, f"message {number}")
            nids.append((await self.rooms.get(room_id)).room_nid)
        self.before = [shown(await self.room(nid)) for nid in nids]
        self.restart()
        return nids

    async def room(self, nid: int) -> Room:
        room = await self.rooms.by_number(nid)
        assert room is not None
        return room

    async def test_many_rooms_cost_few_statements(self) -> None:
        """They show what they would show if they had been loaded one by one."""
        nids = await self.make_rooms(20)
        runs = self.db.runs

        await self.rooms.load_many([*nids, 1_000_000])

        assert self.db.runs - runs < 10
        together = [shown(await self.room(nid)) for nid in nids]
        self.restart()
        assert together == [shown(await self.room(nid)) for nid in nids]
        assert [each[:6] for each in together] == [each[:6] for each in self.before]  # type: ignore[index]

    async def test_large_rooms_are_loaded_in_parts(self) -> None:
        """A hundred rooms of thousands of members are never read at once."""
        nids = await self.make_rooms(3)

        with patch.object(room_loader, "PART_ENTRIES", 1):
            await self.rooms.load_many(nids)

        assert all(self.rooms.loaded(nid) for nid in nids)
        together = [shown(await self.room(nid)) for nid in nids]
        self.restart()
        assert together == [shown(await self.room(nid)) for nid in nids]

    async def test_what_is_too_large_together_is_loaded_one_by_one(self) -> None:
        """So much state would not fit into memory, or evict all other rooms."""
        nids = await self.make_rooms(3)

        with (
            patch.object(room_loader, "PART_ENTRIES", 1),
            patch.object(room_loader, "MAX_ENTRIES", 1),
        ):
            await self.rooms.load_many(nids)
            in_memory = [nid for nid in nids if self.rooms.loaded(nid) is not None]
            together = [shown(await self.room(nid)) for nid in nids]

        assert len(in_memory) == 1
        self.restart()
        assert together == [shown(await self.room(nid)) for nid in nids]

    async def test_a_room_under_way_is_not_loaded_twice(self) -> None:
        """A request for one of many rooms waits for the load of all."""
        nids = await self.make_rooms(3)

        loading = Deferred.fromCoroutine(self.rooms.load_many(nids))
        assert await self.rooms.by_number(nids[1]) is not None
        await loading

        assert self.rooms.loads == 3

    async def test_many_rooms_are_read_in_batches_even_if_memory_has_no_room_for_them(self) -> None:
        """A user may be in more of them."""
        nids = await self.make_rooms(10)
        space_for_six = 6 * (await self.room(nids[0])).memory
        runs = self.db.runs

        with (
            patch.object(self.rooms._loaded, "capacity", space_for_six),
            patch.object(registry, "BATCH_SIZE", 5),
        ):
            found = [
                room async for rooms in self.rooms.in_batches([*nids, 10**9]) for room in rooms
            ]

        assert [room.room_nid for room in found] == nids
        assert self.rooms.loaded(nids[0]) is None
        assert self.db.runs - runs < 20

    async def test_a_room_that_leaves_memory_is_freed_at_once(self) -> None:
        """Nothing is left to the garbage collector, which examines old objects rarely."""
        (nid,) = await self.make_rooms(1)
        room_id = (await self.room(nid)).room_id
        await self.say(room_id, "a writer has written")
        gone = [
            weakref.ref(each) for each in (await self.room(nid), await self.rooms.writer(room_id))
        ]
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)

        self.rooms.drop(await self.room(nid))

        assert [reference() for reference in gone] == [None, None]


class LongTimelineTests(RoomsTestCase):
    async def test_an_idle_room_keeps_a_first_page(self) -> None:
        """The rest is read from the database where somebody wants it."""
        idle, active = [await self.create_room() for _ in range(2)]
        rooms = [await self.rooms.get(room_id) for room_id in (idle, active)]
        with patch.object(self.rooms._long_timelines, "capacity", 30_000):
            for room_id in (idle, active):
                for number in range(SHORT_TIMELINE + 5):
                    await self.say(room_id, f"message {number}")

        lengths = [len(room.timeline) for room in rooms]
        assert lengths[0] == SHORT_TIMELINE < lengths[1]
        first = rooms[0].timeline[0].position or 0
        assert rooms[0].timeline_from < first
        assert rooms[0].events_after(rooms[0].timeline_from) == list(rooms[0].timeline)
        assert rooms[0].events_after(rooms[0].timeline_from - 1) is None

    async def test_memory_of_a_room_follows_its_timeline(self) -> None:
        """So that rooms are evicted by what they take."""
        room_id = await self.create_room()
        room = await self.rooms.get(room_id)
        before = room.memory

        await self.say(room_id, "x" * 5_000)

        assert before + 5_000 < room.memory < before + 10_000
        assert self.rooms._loaded.size == room.memory


class NewestEventsTests(RoomsTestCase):
    async def test_newest_events_of_a_range_are_those_that_memory_has_for_sure(self) -> None:
        """Where memory may begin too late there is no answer, and the database has it."""
        room = await self.rooms.get(await self.create_room())
        for number in range(5):
            await self.say(room.room_id, f"message {number}")
        room.shorten_timeline(6)
        kept = [stored.position or 0 for stored in room.timeline]
        ends = [0, room.timeline_from, *kept, kept[-1] + 1]

        for since, upto, limit in product(ends, ends, range(1, 9)):
            within = [each for each in kept if since < each <= upto][-limit:]
            is_known = since >= room.timeline_from or len(within) == limit
            events = room.newest_events(since, upto, limit)
            found = None if events is None else [stored.position for stored in events]
            assert found == (within if is_known else None), (since, upto, limit)
