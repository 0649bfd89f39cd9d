"""The room writer: one order of events, with concurrent writers and missing data."""

from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import Deferred, DeferredList, gatherResults

from homeserver.protocol.errors import BadJson, Forbidden, TooLarge
from homeserver.rooms.events.event_draft import EventDraft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.history import PageRequest
from tests.rooms.support import ALICE, BOB, CAROL, RoomsTestCase


class WriterTests(RoomsTestCase):
    async def test_events_sent_at_the_same_time_form_a_chain(self) -> None:
        """All members see one conversation in one order."""
        room_id = await self.create_room()

        await gatherResults(
            [Deferred.fromCoroutine(self.say(room_id, str(number))) for number in range(50)]
        )

        timeline = list((await self.rooms.get(room_id)).timeline)
        depths = [stored.event.depth for stored in timeline]
        assert depths == list(range(1, len(timeline) + 1))
        for earlier, later in pairwise(timeline):
            assert later.event.prev_event_ids == [earlier.event.event_id]

    async def test_refused_event_changes_nothing(self) -> None:
        """One member's failed attempt is no trouble for the next message."""
        room_id = await self.create_room()
        async with self.rooms.writing(room_id) as writer:
            extremities = writer.extremities

            for draft, error in (
                (EventDraft("m.room.name", BOB.user_id, {}, state_key=""), Forbidden),
                (EventDraft("m.room.message", ALICE.user_id, {"body": "x" * 70_000}), TooLarge),
                (EventDraft("m.room.message", ALICE.user_id, {"size": 0.5}), BadJson),
                (EventDraft("a\x00b", ALICE.user_id, {}), BadJson),
            ):
                with pytest.raises(error):
                    await writer.send(draft)

            assert writer.extremities is extremities
        await self.say(room_id, "next")

    async def test_drafts_are_written_together_or_not_at_all(self) -> None:
        """Events that belong together are never stored in part."""
        room_id = await self.create_room()
        await self.say(room_id, "first")
        drafts = [
            EventDraft("m.room.topic", ALICE.user_id, {"topic": "new"}, state_key=""),
            EventDraft("m.room.message", CAROL.user_id, {"body": "not a member"}),
        ]
        await self.names.nids(["m.room.topic", CAROL.user_id])
        async with self.rooms.writing(room_id) as writer:
            extremities = writer.extremities

            with pytest.raises(Forbidden):
                writer.append(drafts)

            assert writer.extremities is extremities
            assert writer.current(("m.room.topic", "")) is None

    async def test_queued_state_holds_before_it_is_published(self) -> None:
        """A ban is in force for the very next event, not only once the database has it."""
        room_id = await self.create_room()
        await self.memberships.join(BOB, room_id)
        await self.say(room_id, "hello", by=BOB)

        outcomes = await DeferredList(
            [
                Deferred.fromCoroutine(self.memberships.ban(ALICE, room_id, BOB.user_id)),
                Deferred.fromCoroutine(self.say(room_id, "ha", by=BOB)),
            ],
            consumeErrors=True,
        )

        (banned, _), (said, failure) = outcomes
        assert (banned, said) == (True, False)
        failure.trap(Forbidden)

    async def test_state_that_would_change_nothing_is_not_written(self) -> None:
        """Clients that set the same again and again do not fill the room."""
        room_id = await self.create_room()
        draft = EventDraft("m.room.name", ALICE.user_id, {"name": "Tea"}, state_key="")
        async with self.rooms.writing(room_id) as writer:
            first = await writer.send(draft)

            assert await writer.send(draft) is first

    async def test_writer_continues_after_a_restart(self) -> None:
        """The chain of events, and the state, continue where they ended."""
        room_id = await self.create_room()
        last = await self.say(room_id, "before")
        root = (await self.rooms.get(room_id)).root

        self.restart()
        await self.say(room_id, "after")

        room = await self.rooms.get(room_id)
        newest = room.timeline[-1].event
        assert newest.prev_event_ids == [last]
        assert newest.depth == room.timeline[-2].event.depth + 1
        assert room.root == root

    async def test_reader_sees_an_event_only_once_it_is_durable(self) -> None:
        """A crash never removes an event that a client has received."""
        room_id = await self.create_room()
        await self.say(room_id, "first")
        room = await self.rooms.get(room_id)
        async with self.rooms.writing(room_id) as writer:
            (stored,), done = writer.append([EventDraft("m.room.message", ALICE.user_id, {})])

            assert stored not in room.timeline
            assert writer.is_busy

            await done
            assert room.timeline[-1] is stored


class SmallMemoryTests(RoomsTestCase):
    cached_events = 5

    async def test_missing_data_is_loaded(self) -> None:
        """A server with many more rooms than memory serves each of them as well."""
        rooms = [await self.create_room() for _ in range(3)]

        for text in ("one", "two"):
            for room_id in rooms:
                await self.say(room_id, text)

        for room_id in rooms:
            page = await self.history.page(ALICE.user_id, room_id, PageRequest(True, limit=2))
            assert [_body(seen.stored) for seen in page.chunk] == ["two", "one"]


def _body(stored: StoredEvent) -> Any:
    return stored.event.content.get("body")
