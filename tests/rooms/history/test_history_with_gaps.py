"""Pages of a room's history of which this server has missed a part.

Spec: https://spec.matrix.org/v1.19/client-server-api/#pagination
"""

from typing import Any

from homeserver.protocol.events import Event
from homeserver.rooms.history.history import Page, PageRequest
from tests.rooms.inbound.replica import ALICE, BOB
from tests.support.postgres import DatabaseTestCase
from tests.sync.remote_room import RemoteRoom
from tests.sync.sync_server import SyncServer


class HistoryWithGapsTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = RemoteRoom()
        self.server = await SyncServer.start(self.db, self.there)
        self.there.use(self.server)
        self.carol = await self.server.user("carol")
        await self.there.join(self.carol)
        self.before = [self.there.say(f"before {number}") for number in range(2)]
        for event in self.before:
            await self.there.deliver(event)
        self.since = (await self.server.update(self.carol))["next_batch"]
        self.missed = [self.there.say(f"missed {number}") for number in range(6)]
        self.after = [self.there.say(f"after {number}") for number in range(2)]
        for event in self.after:
            await self.there.deliver(event)

    async def page(self, *, backwards: bool = True, limit: int = 20, **options: Any) -> Page:
        request = PageRequest(backwards=backwards, limit=limit, **options)
        return await self.server.rooms.history.page(self.carol.user_id, self.there.room_id, request)

    async def test_page_forwards_includes_missed_events(self) -> None:
        """Backfilled events of the gap follow the last event that the client has seen."""
        expected = [*self.missed, *self.after]

        for limit in (20, 3):
            found: list[str] = []
            page = await self.page(backwards=False, since=self.since, limit=limit)
            while page.end is not None:
                found += _bodies(page)
                page = await self.page(backwards=False, since=page.end, limit=limit)
            assert found == [each.content["body"] for each in expected]

    async def test_page_forwards_ends_at_a_gap_that_no_server_fills(self) -> None:
        """The next page continues after the gap: one page never crosses it."""
        self.there.max_backfilled = 0
        event_id = self.before[0].event_id
        context = await self.context(event_id, limit=0)

        first = await self.page(backwards=False, since=context.end)
        second = await self.page(backwards=False, since=first.end)

        assert _bodies(first) == ["before 1"]
        assert _bodies(second) == ["after 0", "after 1"]

    async def test_page_backwards_ends_at_a_gap_that_no_server_fills(self) -> None:
        """The same holds in the other direction."""
        self.there.max_backfilled = 0

        first = await self.page()
        second = await self.page(since=first.end)

        assert _bodies(first) == ["after 1", "after 0"]
        assert _bodies(second)[:2] == ["before 1", "before 0"]

    async def test_page_backwards_ends_in_a_gap_that_is_partly_filled(self) -> None:
        """The next page requests the rest, and no event is left out."""
        self.there.max_backfilled = 2

        found: list[str] = []
        page = await self.page()
        for _ in range(30):
            found += _bodies(page)
            if page.end is None:
                break
            page = await self.page(since=page.end)

        expected = [*self.before, *self.missed, *self.after]
        assert found[:10] == [each.content["body"] for each in reversed(expected)]

    async def test_context_does_not_reach_over_a_gap(self) -> None:
        """`/context` shows only events that were neighbours of the event."""
        self.there.max_backfilled = 0

        behind = await self.context(self.after[0].event_id)
        ahead = await self.context(self.before[-1].event_id)

        assert _bodies_of(behind.before) == []
        assert _bodies_of(behind.after) == ["after 1"]
        assert _bodies_of(ahead.before)[:1] == ["before 0"]
        assert _bodies_of(ahead.after) == []

    async def test_context_includes_missed_events(self) -> None:
        """`/context` fills a gap if another server has the events."""
        context = await self.context(self.after[0].event_id, limit=6)

        assert _bodies_of(context.before) == ["missed 5", "missed 4", "missed 3"]

    async def test_chain_of_gaps_is_paged_through(self) -> None:
        """A gap ends a page if no server fills it, and a client pages through all gaps."""
        more = [self.there.say(f"missed again {number}") for number in range(3)]
        last = self.there.say("last")
        await self.there.deliver(last)
        section = await self.server.update(self.carol, self.since)
        timeline = section["rooms"]["join"][self.there.room_id]["timeline"]

        page = await self.page(since=timeline["prev_batch"], limit=12)

        assert [each["event_id"] for each in timeline["events"]] == [last.event_id]
        expected = [*self.before[1:], *self.missed, *self.after, *more]
        assert _bodies(page) == [each.content["body"] for each in reversed(expected)]

    async def test_missed_redaction_takes_effect_when_it_is_backfilled(self) -> None:
        """It redacts known events and events that were missed with it."""
        targets: list[Event] = [self.before[1], self.missed[2]]
        redactions = [
            self.there.make("m.room.redaction", BOB, {"redacts": target.event_id})
            for target in targets
        ]
        await self.there.deliver(self.there.say("last", ALICE))

        await self.page(limit=40)

        room = await self.server.core.registry.get(self.there.room_id)
        stored = await self.server.remote.find(room, [target.event_id for target in targets])
        redacted_by = [each.redaction and each.redaction.event_id for each in stored]
        assert redacted_by == [each.event_id for each in redactions]

    async def context(self, event_id: str, limit: int = 10) -> Any:
        request = PageRequest(backwards=True, limit=limit)
        return await self.server.rooms.history.context(
            self.carol.user_id, self.there.room_id, event_id, request
        )


def _bodies(page: Page) -> list[str]:
    return _bodies_of(page.chunk)


def _bodies_of(seen: Any) -> list[str]:
    events = [each.stored.event for each in seen]
    return [event.content.get("body", event.type) for event in events]
