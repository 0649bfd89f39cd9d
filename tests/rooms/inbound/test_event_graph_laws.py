"""Laws of the event graph, for any events in any order."""

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import ACCEPTED, StoredEvent
from tests.rooms.inbound.replica import ALICE, BOB, CAROL, DAVE, Graph, Replica

PEOPLE = (ALICE, BOB, CAROL, DAVE)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
WHOLE = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow], phases=PHASES
)


@st.composite
def forked_graphs(draw: st.DrawFn) -> Graph:
    """Users do anything on any branch, and sometimes cite wrong auth events."""
    graph = Graph(draw(st.sampled_from(["1", "2", "6", "9", "11", "12"])))
    graph.public()
    for user_id in draw(st.sets(st.sampled_from(PEOPLE[1:]))):
        graph.join(user_id)
    graph.levels(users={ALICE: 100, BOB: 50, CAROL: 50})
    for _ in range(draw(st.integers(0, 14))):
        _act(draw, graph)
    return graph


def _act(draw: st.DrawFn, graph: Graph) -> None:
    newest = graph.events[-6:]
    how: dict[str, Any] = {
        "after": draw(st.lists(st.sampled_from(newest), min_size=1, max_size=3, unique=True)),
        "at": draw(st.integers(0, 30)),
    }
    if draw(st.integers(0, 9)) == 0:
        cited = st.lists(st.sampled_from(graph.events), max_size=4, unique=True)
        how["auth"] = draw(cited)
    by, target = draw(st.sampled_from(PEOPLE)), draw(st.sampled_from(PEOPLE))
    match draw(st.sampled_from(["member", "own", "levels", "rule", "topic", "say", "redact"])):
        case "member":
            membership = draw(st.sampled_from(["leave", "ban", "invite"]))
            graph.member(target, membership, by, **how)
        case "own":
            graph.member(by, draw(st.sampled_from(["join", "leave"])), **how)
        case "levels":
            users = {who: draw(st.integers(0, 100)) for who in (BOB, CAROL)}
            graph.levels(by, users={ALICE: 100} | users, **how)
        case "rule":
            rule = draw(st.sampled_from(["public", "invite"]))
            graph.send("m.room.join_rules", by, {"join_rule": rule}, "", **how)
        case "topic":
            graph.send("m.room.topic", by, {"topic": str(len(graph.events))}, "", **how)
        case "say":
            graph.say(by, **how)
        case "redact":
            graph.redact(by, draw(st.sampled_from(graph.events)).event_id, **how)


def _refusals(replica: Replica, events: list[Event]) -> dict[str, str | None]:
    return {event.event_id: replica.stored(event).status.rejected for event in events}


@WHOLE
@given(forked_graphs(), st.data())
def test_order_of_arrival_does_not_matter(graph: Graph, data: st.DataObject) -> None:
    """Servers receive events in different orders, and agree on the status of each."""
    other = graph.replica()

    other.receive_all(data.draw(st.permutations(graph.events)))

    assert _refusals(other, graph.events) == _refusals(graph, graph.events)
    for event in graph.events:
        local, theirs = graph.stored(event), other.stored(event)
        assert graph.state_at(local.state_before) == other.state_at(theirs.state_before)
        assert graph.state_at(local.state_after) == other.state_at(theirs.state_after)
    soft_failed = [
        event
        for event in graph.events
        if graph.stored(event).status.soft_failed or other.stored(event).status.soft_failed
    ]
    if not soft_failed:
        assert other.extremities == graph.extremities
        assert other.state == graph.state


@WHOLE
@given(forked_graphs(), st.data())
def test_all_agree_once_an_event_joins_the_branches(graph: Graph, data: st.DataObject) -> None:
    """Servers may differ in the current state for a while, but not after a merge."""
    other = graph.replica()
    other.receive_all(data.draw(st.permutations(graph.events)))
    followed = {prev for event in graph.events for prev in event.prev_event_ids}
    ends = [
        event
        for event in graph.events
        if event.event_id not in followed and graph.stored(event).status.rejected is None
    ]

    last = graph.say(ALICE, after=ends[-10:])
    other.receive(last)

    local, theirs = graph.stored(last), other.stored(last)
    assert local.status.rejected == theirs.status.rejected
    assert graph.state_at(local.state_after) == other.state_at(theirs.state_after)
    if local.position is not None and theirs.position is not None and len(ends) <= 10:
        assert last.event_id in graph.extremities & other.extremities


@WHOLE
@given(forked_graphs(), st.data())
def test_redactions_are_shown_once_and_only_with_their_effect(
    graph: Graph, data: st.DataObject
) -> None:
    """In any order of arrival, clients get an event and then its redaction."""
    other = graph.replica()

    other.receive_all(data.draw(st.permutations(graph.events)))

    redactions: dict[str, list[StoredEvent]] = {}
    for event in graph.events:
        stored = other.stored(event)
        assert other.shown.count(stored) == (stored.position is not None)
        if event.redacts is not None and stored.status == ACCEPTED:
            redactions.setdefault(event.redacts, []).append(stored)
    for event in graph.events:
        target, of_it = other.stored(event), redactions.get(event.event_id, [])
        shown = [each for each in of_it if each.position is not None]
        if target.redaction is not None:
            assert target.redaction in [each.event for each in shown]
        if not graph.room.version.redactions_need_power:
            assert target.redaction is not None or not shown
            assert all((target.position or 0) < (each.position or 0) for each in shown)


@WHOLE
@given(forked_graphs())
def test_subscribers_get_each_change_of_the_state(graph: Graph) -> None:
    """Members and settings that clients see are those of the server's current state."""
    assert graph.shown_state == graph.state
    joined = sum(membership == "join" for membership in graph.room.members.values())
    assert graph.room.joined_count == joined


@WHOLE
@given(forked_graphs())
def test_current_state_is_the_resolution_of_the_extremities(graph: Graph) -> None:
    """Nothing that happened on the way leaves a trace in the state."""
    extremities = graph.writer.extremities

    resolved = graph.run(
        graph.resolver.resolve(graph.room, [each.state_after for each in extremities.events])
    )

    assert resolved.root == extremities.root == graph.room.root
    assert 1 <= len(extremities.events) <= 10
    for stored in extremities.events:
        assert stored.status.rejected is stored.status.soft_failed is None
        assert stored.position is not None or stored.is_redaction_pending
