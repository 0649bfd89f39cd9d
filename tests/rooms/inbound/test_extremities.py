"""Forward extremities: the number of branches of a room, and how they merge."""

from homeserver.protocol.events import Event
from homeserver.rooms.inbound.receiver import DUMMY_EVENT
from homeserver.rooms.room.extremities import MAX_EXTREMITIES
from tests.rooms.inbound.replica import ALICE, BOB, CAROL, DAVE, Graph


def forked(branches: int, *, silent: bool = False) -> Graph:
    """A room in which others have sent that many events without knowing of each other."""
    graph = Graph("11")
    graph.public()
    graph.join(BOB)
    if silent:
        levels = {"users": {ALICE: 100, BOB: 50}, "events_default": 50}
        graph.send("m.room.power_levels", ALICE, levels, "")
        graph.join(DAVE)
        graph.member(ALICE, "leave")
    base = graph.events[-1]
    for body in range(branches):
        graph.say(BOB, str(body), after=[base])
    return graph


def newest(graph: Graph, number: int) -> set[str]:
    return {event.event_id for event in graph.events[-number:]}


def test_ten_branches_are_kept_apart() -> None:
    """The next local event can merge them all."""
    graph = forked(MAX_EXTREMITIES)

    assert graph.extremities == newest(graph, MAX_EXTREMITIES)


def test_eleventh_branch_is_merged_by_a_dummy_event() -> None:
    """A room stays connected although no local user sends a message."""
    graph = forked(MAX_EXTREMITIES + 1)

    merge = graph.room.timeline[-2].event
    assert (merge.type, merge.sender) == (DUMMY_EVENT, ALICE)
    assert set(merge.prev_event_ids) == newest(graph, MAX_EXTREMITIES + 1) - newest(graph, 1)
    assert graph.extremities == {merge.event_id, graph.events[-1].event_id}


def test_all_branches_are_kept_where_no_local_user_may_send() -> None:
    """Local members without power merge nothing; any branch may hold a ban that others lack."""
    graph = forked(MAX_EXTREMITIES + 3, silent=True)

    assert graph.extremities == newest(graph, MAX_EXTREMITIES + 3)
    assert all(stored.event.type != DUMMY_EVENT for stored in graph.room.timeline)


def test_most_powerful_member_joins_the_branches() -> None:
    """A room in which few may speak is joined by one of these, and all others are not tried."""
    graph = Graph("11")
    graph.public()
    for user_id in (BOB, CAROL, DAVE):
        graph.join(user_id)
    levels = {"users": {ALICE: 100, BOB: 50, DAVE: 50}, "events_default": 50}
    graph.send("m.room.power_levels", ALICE, levels, "")
    graph.member(ALICE, "leave")
    base = graph.events[-1]

    for body in range(MAX_EXTREMITIES + 1):
        graph.say(BOB, str(body), after=[base])

    merge = graph.room.timeline[-2].event
    assert (merge.type, merge.sender) == (DUMMY_EVENT, DAVE)


def test_local_event_merges_all_branches() -> None:
    """A local event cites all extremities that the server has received."""
    graph = forked(7)

    said = graph.say(ALICE, after=graph.events[-7:])

    assert graph.extremities == {said.event_id}


def test_event_after_a_refused_one_replaces_the_earlier_extremities() -> None:
    """A refused event is no extremity, and does not keep those before it."""
    graph = forked(1)
    base = graph.events[-1]
    refused: list[Event] = [base]
    for number in range(3):
        topic = {"topic": str(number)}
        refused.append(graph.send("m.room.topic", BOB, topic, "", after=refused[-1:]))
    assert graph.extremities == {base.event_id}

    said = graph.say(BOB, after=refused[-1:])

    assert graph.extremities == {said.event_id}


def test_old_event_that_comes_late_is_a_branch_of_its_own() -> None:
    """Neither the event that it follows nor its later successors are lost."""
    graph = forked(1)
    base = graph.events[-2]
    newest_event = graph.say(ALICE)

    late = graph.say(BOB, "late", after=[base])

    assert graph.extremities == {newest_event.event_id, late.event_id}
    assert late.event_id in {stored.event.event_id for stored in graph.room.timeline}
