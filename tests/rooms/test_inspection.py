"""Room inspection for operators, read directly from the database."""

from homeserver.rooms.diagnostics.room_graph import Mark, RoomGraph
from homeserver.rooms.diagnostics.room_inspection import RoomInspection
from homeserver.storage.rooms.rooms import RoomRow
from tests.rooms.inbound.replica import ALICE
from tests.rooms.inbound.stored_graph import MixedRoom
from tests.rooms.support import RoomsTestCase


class InspectionTests(RoomsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.colours = MixedRoom()
        await self.colours.store(self)
        self.inspection = RoomInspection(self.db)

    async def row(self) -> RoomRow:
        row = await self.inspection.find(self.colours.graph.room.room_id)
        assert row is not None
        return row

    async def test_report_counts_events_by_status(self) -> None:
        """An operator sees at a glance whether a room is healthy."""
        colours = self.colours

        report = await self.inspection.report(await self.row())

        counts = report.event_counts
        assert (counts.outliers, counts.soft_failed, counts.rejected, counts.backfilled) == (
            1,
            1,
            1,
            1,
        )
        assert counts.total == len(colours.graph.events)
        assert [number for _, _, number in report.refusals] == [1, 1]
        assert all(rule.startswith("rule ") for _, rule, _ in report.refusals)
        assert report.backward_extremities.keys() == {colours.lost.event_id}
        extremity_ids = {stored.event.event_id for stored in report.extremities}
        assert extremity_ids == {colours.ban.event_id, colours.after_gap.event_id}

    async def test_report_has_state_and_members(self) -> None:
        """An operator sees the members, their servers, and the state in force."""
        report = await self.inspection.report(await self.row())

        assert report.members == {"join": {"one.example": 1}, "ban": {"two.example": 1}}
        assert report.state_counts["m.room.member"] == 2
        (topic,) = report.state["m.room.topic"]
        assert topic.event == self.colours.right
        assert report.room_id == self.colours.graph.room.room_id

    async def test_graph_marks_each_event(self) -> None:
        """One picture shows why two servers do not show the same events."""
        colours = self.colours

        graph = await self.inspection.newest(await self.row(), 100)

        marks = {event.event_id: event.mark for event in graph.events}
        assert marks[colours.soft_failed.event_id] is Mark.SOFT_FAILED
        assert marks[colours.rejected.event_id] is Mark.REJECTED
        assert marks[colours.lost.event_id] is Mark.MISSING
        assert marks[colours.merge.event_id] is Mark.ACCEPTED
        assert [event.event_id for event in graph.events if event.is_backfilled] == [
            colours.past.event_id
        ]
        assert {event.event_id for event in graph.events if event.is_extremity} == {
            colours.ban.event_id,
            colours.after_gap.event_id,
        }
        assert_children_first(graph)

    async def test_graph_is_bounded(self) -> None:
        """A room of ten years can be looked at like one of yesterday."""
        colours = self.colours

        graph = await self.inspection.newest(await self.row(), 3)

        # The newest events that have a place, and the missing ones before them.
        assert [event.event_id for event in graph.events if event.mark is not Mark.MISSING] == [
            colours.after_gap.event_id,
            colours.rejected.event_id,
            colours.soft_failed.event_id,
        ]
        assert set(graph.beyond) == {
            colours.past.event_id,
            colours.merge.event_id,
            colours.ban.event_id,
        }

    async def test_graph_around_an_event_has_both_sides_of_it(self) -> None:
        """The cause of a problem in a room may be long ago."""
        colours = self.colours

        graph = await self.inspection.around(await self.row(), colours.merge.event_id, 5)

        assert graph is not None
        drawn = {event.event_id for event in graph.events}
        assert {colours.left.event_id, colours.merge.event_id, colours.ban.event_id} < drawn
        assert len([event for event in graph.events if event.mark is not Mark.MISSING]) <= 5

    async def test_outlier_that_is_followed_is_drawn(self) -> None:
        """The hole in a room's history is seen to be one."""
        row, colours = await self.row(), self.colours

        graph = await self.inspection.around(row, colours.outlier.event_id, 1)

        assert graph is not None
        (event,) = graph.events
        assert event.mark is Mark.OUTLIER
        assert list(graph.beyond) == [colours.ban.event_id]

    async def test_event_of_another_room_is_not_found(self) -> None:
        """A mistyped id ends in a sentence, not in another room's picture."""
        other = await self.create_room()
        event_id = await self.say(other, "hello")

        assert await self.inspection.around(await self.row(), event_id, 10) is None

    async def test_room_is_found_by_its_alias(self) -> None:
        """People know aliases, not ids."""
        room_id = await self.create_room(alias_name="tea")

        row = await self.inspection.find("#tea:example.org")

        assert row is not None
        assert (await self.inspection.report(row)).room_id == room_id
        assert await self.inspection.find("#coffee:example.org") is None
        assert await self.inspection.find(ALICE) is None


def assert_children_first(graph: RoomGraph) -> None:
    seen: set[str] = set()
    for event in graph.events:
        assert not seen.intersection(event.prev_event_ids)
        seen.add(event.event_id)
