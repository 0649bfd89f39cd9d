"""Outliers, backfilled events, and states that another server gave."""

import pytest

from homeserver.protocol.errors import Unavailable
from homeserver.protocol.events import Event
from homeserver.rooms.inbound.event_checks import EventsMissing
from homeserver.rooms.resolution.resolver import ResolvedState
from tests.rooms.inbound.replica import ALICE, BOB, CAROL, Graph, Replica


def busy_room() -> Graph:
    graph = Graph("11")
    graph.public()
    graph.join(BOB)
    for body in range(5):
        graph.say(BOB, str(body))
    return graph


def arrive(graph: Graph, other: Replica, event: Event) -> None:
    """Bring another server into the room by an event: it learns the state before, no more."""
    before = graph.stored(event).state_before
    ids = set(graph.state_at(before).values())
    known = [each for each in graph.events if each.event_id in ids]
    other.run(other.receiving.outliers(other.writer, known))
    state = other.run(other.receiving.state_of(other.writer, ids))
    received = other.run(
        other.receiving.receive(other.writer, event, state_before=state, is_remote_join=True)
    )
    other.publish()
    assert received.stored.status.rejected is None
    assert state.rows


def test_outlier_is_stored_and_shown_nowhere() -> None:
    """An event that is only cited has no place in the graph."""
    graph = busy_room()
    other = graph.replica()
    outliers, done = other.run(other.receiving.outliers(other.writer, graph.events[:4]))
    other.publish()

    assert done is not None
    assert [each.position for each in outliers] == [None] * 4
    assert all(each.status.is_outlier for each in outliers)
    assert other.extremities == set()
    assert other.room.timeline_from == 0
    assert not other.room.timeline


def test_outliers_are_kept_once() -> None:
    """The same auth events come with every event that cites them."""
    graph = busy_room()
    other = graph.replica()
    first, _ = other.run(other.receiving.outliers(other.writer, graph.events[:4]))

    again, done = other.run(other.receiving.outliers(other.writer, graph.events[:5]))

    assert again[:4] == first
    assert done is not None
    assert other.run(other.receiving.outliers(other.writer, graph.events[:5]))[1] is None


def test_outlier_that_its_auth_events_do_not_allow_is_rejected() -> None:
    """An event that authorises others must be authorised itself."""
    graph = busy_room()
    forged = graph.make(
        "m.room.power_levels", BOB, {"users": {BOB: 100}}, "", auth=graph.events[:2]
    )
    other = graph.replica()

    outliers, _ = other.run(other.receiving.outliers(other.writer, [*graph.events[:2], forged]))

    refused = [each.status.rejected is not None for each in outliers]
    assert refused == [False, False, True]


def test_outliers_with_missing_auth_events_are_refused_together() -> None:
    """If the caller lacks part of the chain, none of it is stored."""
    graph = busy_room()
    other = graph.replica()

    with pytest.raises(EventsMissing) as missing:
        other.run(other.receiving.outliers(other.writer, [graph.events[0], graph.events[2]]))

    assert missing.value.auth == {graph.events[1].event_id}
    assert other.stores.events.cached_id(other.room.room_id, graph.create.event_id) is None


def test_outlier_finds_its_place() -> None:
    """Once its previous events are there, it is an event like any other."""
    graph = busy_room()
    other = graph.replica()
    outliers, _ = other.run(other.receiving.outliers(other.writer, graph.events[:5]))
    numbers = [each.event_nid for each in outliers]

    other.receive_all(graph.events)

    assert [other.stored(event).event_nid for event in graph.events[:5]] == numbers
    assert other.extremities == graph.extremities
    assert other.state == graph.state == other.shown_state
    assert [stored.event for stored in other.room.timeline] == graph.events


def test_outlier_whose_receipt_failed_remains_an_outlier() -> None:
    """An event does not get a partial place in the graph."""
    graph = busy_room()
    other = graph.replica()
    other.run(other.receiving.outliers(other.writer, graph.events[:5]))
    other.receive_all(graph.events[:4])
    other.db.is_read_only = True
    other.clock.advance(0)
    other.receive(graph.events[4])
    stuck = graph.events[5]

    with pytest.raises(Unavailable):
        other.receive(stuck)

    other.db.is_read_only = False
    other.clock.advance(1)
    other.receive_all(graph.events)
    assert other.extremities == graph.extremities
    assert other.state == graph.state


def test_server_joins_with_the_state_it_was_given() -> None:
    """A server that joins knows the state, and of the history only that it exists."""
    graph = busy_room()
    graph.send("m.room.topic", ALICE, {"topic": "rain"}, "")
    newest = graph.events[-1]
    join = graph.join(CAROL)
    other = graph.replica("three.example")

    arrive(graph, other, join)

    assert other.extremities == {join.event_id}
    assert other.state == other.shown_state == graph.state
    assert other.room.backward_extremities == {newest.event_id: join.depth}
    assert [stored.event for stored in other.room.timeline] == [join]
    assert other.room.joined_count == 3


def test_backfill_fills_the_gap_and_leaves_the_present_alone() -> None:
    """No sync shows events that were fetched for a user who pages back."""
    graph = busy_room()
    join = graph.join(CAROL)
    other = graph.replica("three.example")
    arrive(graph, other, join)
    state, newest = other.state, other.extremities

    for event in graph.events[-2:3:-1]:
        before = other.run(
            other.receiving.state_of(
                other.writer, set(graph.state_at(graph.stored(event).state_before).values())
            )
        )
        stored = other.receive(event, state_before=before)
        assert stored.position is not None
        assert stored.position < 0

    assert (other.state, other.extremities) == (state, newest)
    assert (
        other.room.backward_extremities
        == other.writer.backward_extremities
        == {graph.events[3].event_id: graph.events[4].depth}
    )
    assert [each.event for each in other.room.timeline] == [join]


def test_complete_history_leaves_no_gap() -> None:
    """At the create event the server stops requesting earlier events."""
    graph = busy_room()
    join = graph.join(CAROL)
    other = graph.replica("three.example")
    arrive(graph, other, join)

    for event in graph.events[:-1]:
        other.receive(event, is_backfilled=True)

    assert other.room.backward_extremities == other.writer.backward_extremities == {}
    assert other.extremities == {join.event_id}
    assert other.state == graph.state


def test_gap_is_before_a_rejected_event_once_that_is_there() -> None:
    """The server does not request a rejected event again and again."""
    graph = busy_room()
    before = graph.events[-1]
    refused = graph.send("m.room.topic", BOB, {"topic": "no right"}, "")
    join = graph.join(CAROL, after=[refused])
    other = graph.replica("three.example")
    arrive(graph, other, join)
    assert other.room.backward_extremities == {refused.event_id: join.depth}

    root = other.stored(join).state_before
    stored = other.receive(refused, state_before=ResolvedState(root))

    assert stored.status.rejected is not None
    assert stored.position is None
    assert (
        other.room.backward_extremities
        == other.writer.backward_extremities
        == {before.event_id: refused.depth}
    )


def test_server_rejoins_the_room() -> None:
    """Events between two stays count; the state assumed meanwhile does not."""
    graph = busy_room()
    first = graph.join(CAROL)
    other = graph.replica("three.example")
    arrive(graph, other, first)
    gone = graph.member(CAROL, "leave")
    other.receive(gone)
    graph.member(BOB, "ban", ALICE)
    graph.send("m.room.name", ALICE, {"name": "later"}, "")
    newest = graph.events[-1]
    again = graph.join(CAROL)

    arrive(graph, other, again)

    assert other.extremities == {again.event_id}
    assert other.state == other.shown_state == graph.state
    assert other.room.membership(BOB) == "ban"
    assert other.room.backward_extremities.keys() >= {newest.event_id}
    said = graph.say(ALICE)
    assert other.receive(said).position is not None
    assert other.extremities == {said.event_id}


def test_join_that_the_given_state_does_not_allow_is_rejected() -> None:
    """A resident server that lies about the state admits no user."""
    graph = busy_room()
    join = graph.join(CAROL)
    other = graph.replica("three.example")
    state = graph.state_at(graph.stored(join).state_before)
    known = [each for each in graph.events if each.event_id in set(state.values())]
    other.run(other.receiving.outliers(other.writer, known))
    given = other.run(other.receiving.state_of(other.writer, [graph.create.event_id]))

    received = other.run(
        other.receiving.receive(other.writer, join, state_before=given, is_remote_join=True)
    )
    other.publish()

    assert received.stored.status.rejected is not None
    assert other.extremities == set()
    assert other.room.backward_extremities == {}


def test_given_state_excludes_rejected_events() -> None:
    """A state from another server cannot bring rejected events back."""
    graph = busy_room()
    forged = graph.make("m.room.topic", BOB, {"topic": "forged"}, "", auth=graph.events[:2])
    other = graph.replica()
    other.run(other.receiving.outliers(other.writer, [*graph.events[:4], forged]))

    given = other.run(
        other.receiving.state_of(
            other.writer, [event.event_id for event in [*graph.events[:4], forged]]
        )
    )

    assert ("m.room.topic", "") not in other.state_at(given.root)
    with pytest.raises(EventsMissing):
        other.run(other.receiving.state_of(other.writer, ["$nobody:has.it"]))
