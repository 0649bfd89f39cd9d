"""Rooms with more branches than one local event merges: none of their state is lost.

Spec: https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
"""

import time
from typing import Any

import pytest

from homeserver.protocol.errors import Forbidden, Unavailable
from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import EventDraft, member_draft
from homeserver.rooms.inbound.receiver import DUMMY_EVENT
from homeserver.rooms.room.extremities import MAX_BRANCHES, MAX_EXTREMITIES
from tests.rooms.inbound.replica import ALICE, BOB, CAROL, DAVE, Graph, Replica
from tests.rooms.inbound.test_completion_laws import LateServer

EVE = "@eve:two.example"
ZOE = "@zoe:five.example"
MEMBER = "m.room.member"
SIBLINGS = MAX_EXTREMITIES + 3
LEVELS = {"users": {ALICE: 100, CAROL: 100, BOB: 50}, "events_default": 50, "state_default": 0}


def silent(*, also: tuple[str, ...] = ()) -> Graph:
    """A room in which Dave is the only one of our users, and may say nothing."""
    graph = Graph("11")
    graph.public()
    for user_id in (BOB, CAROL, DAVE, EVE, *also):
        graph.join(user_id)
    graph.send("m.room.power_levels", ALICE, LEVELS, "")
    graph.member(ALICE, "leave")
    graph.clock.advance(1_000)  # local events claim this time
    return graph


def siblings(graph: Graph, base: Event, number: int = SIBLINGS) -> list[Event]:
    """Messages that follow the same event, and have a greater depth than others that follow it."""
    deep = graph.say(BOB, "deep", after=[graph.say(BOB, "deeper", after=[base])])
    return [graph.say(BOB, f"{number}", after=[deep]) for number in range(number)]


def send(graph: Graph, draft: EventDraft) -> Any:
    stored = graph.run(graph.writer.send(draft))
    graph.publish()
    return stored


def resolution(graph: Graph, events: list[Event]) -> dict[Any, str]:
    """The state that the states after some events resolve to, by the definition alone."""
    roots = [graph.stored(event).state_after for event in events]
    return graph.state_at(graph.run(graph.resolver.resolve(graph.room, roots)).root)


@pytest.mark.parametrize("number", [SIBLINGS, MAX_BRANCHES + 20])
def test_ban_is_not_lost_behind_many_siblings(number: int) -> None:
    """A user cannot undo a ban by replying to many old messages."""
    graph = silent()
    base = graph.events[-1]
    ban = graph.member(EVE, "ban", CAROL, after=[base])

    said = siblings(graph, base, number)

    assert graph.state[MEMBER, EVE] == ban.event_id
    assert graph.shown_state[MEMBER, EVE] == ban.event_id
    assert graph.room.membership(EVE) == "ban"
    late = graph.join(EVE, after=said[-1:])
    assert graph.stored(late).status.soft_failed is not None


def test_ban_is_not_lost_by_the_recheck() -> None:
    """A server that joined with partial state ends with the same state as all others."""
    graph = silent()
    join = graph.join(ZOE)
    late_server = LateServer(graph, join)
    late_server.enter()
    start = len(graph.events)
    ban = graph.member(EVE, "ban", CAROL, after=[join])
    siblings(graph, join)
    for event in graph.events[start:]:
        late_server.receive(event)

    late_server.complete()

    assert late_server.replica.state[MEMBER, EVE] == ban.event_id
    assert late_server.replica.state == graph.state
    assert late_server.replica.extremities == graph.extremities


def test_local_event_merges_ten_branches_and_the_others_stay() -> None:
    """Servers refuse an event with too many previous events; unmerged branches remain."""
    graph = silent()
    base = graph.events[-1]
    ban = graph.member(EVE, "ban", CAROL, after=[base])
    siblings(graph, base)
    other = graph.replica()
    other.receive_all(graph.events)

    stored = send(graph, member_draft(DAVE, DAVE, {"membership": "leave"}))

    followed = stored.event.prev_event_ids
    assert len(followed) == MAX_EXTREMITIES
    assert graph.extremities == (other.extremities - {*followed}) | {stored.event.event_id}
    assert graph.state[MEMBER, EVE] == ban.event_id
    assert graph.state[MEMBER, DAVE] == stored.event.event_id
    # Other servers check it by the events that it follows, with the same result.
    theirs = other.receive(stored.event)
    assert theirs.status.rejected is None
    assert (other.state, other.extremities) == (graph.state, graph.extremities)
    assert other.state_at(theirs.state_before) == graph.state_at(stored.state_before)


def test_local_event_follows_the_branch_that_allows_it() -> None:
    """A user invited on a shallow branch can decline the invite, for all servers."""
    graph = silent()
    base = graph.events[-1]
    invited = "@new:one.example"
    invite = graph.member(invited, "invite", CAROL, after=[base])
    siblings(graph, base)

    draft = member_draft(invited, invited, {"membership": "leave"})
    stored = send(graph, draft)

    assert invite.event_id in stored.event.prev_event_ids
    assert stored.status.rejected is None
    other = graph.replica()
    other.receive_all([*graph.events, stored.event])
    assert other.state[MEMBER, invited] == stored.event.event_id


def test_local_event_is_refused_by_the_state_of_all_branches() -> None:
    """A ban on any branch applies to local users."""
    graph = silent()
    base = graph.events[-1]
    graph.member(DAVE, "ban", CAROL, after=[base])
    siblings(graph, base)

    with pytest.raises(Forbidden):
        send(graph, EventDraft("org.example.state", DAVE, {}, state_key=DAVE))
    with pytest.raises(Unavailable):
        graph.writer.append([EventDraft("org.example.state", CAROL, {}, state_key="")])


def test_branches_are_merged_once_a_local_user_may_send() -> None:
    """A room with many branches gets few again without action of a user."""
    graph = silent()
    base = graph.events[-1]
    said = siblings(graph, base, 3 * MAX_EXTREMITIES)
    users = {**LEVELS["users"], DAVE: 50}  # type: ignore[dict-item]
    graph.send("m.room.power_levels", CAROL, {**LEVELS, "users": users}, "", after=said[-1:])

    graph.say(BOB, "one more", after=[base])

    assert len(graph.extremities) <= MAX_EXTREMITIES
    merges = [stored.event for stored in graph.room.timeline if stored.event.type == DUMMY_EVENT]
    assert {merge.sender for merge in merges} == {DAVE}
    assert all(len(merge.prev_event_ids) <= MAX_EXTREMITIES for merge in merges)
    other = graph.replica()
    other.receive_all([*graph.events, *merges])
    assert (other.state, other.extremities) == (graph.state, graph.extremities)


def test_branches_without_state_are_pruned() -> None:
    """A sender who makes endless branches does not fill this server's memory."""
    graph = silent()
    base = graph.events[-1]
    topics = [
        graph.send("m.room.topic", BOB, {"topic": f"{number}"}, "", after=[base])
        for number in range(MAX_BRANCHES + 30)
    ]
    said = siblings(graph, base, MAX_BRANCHES)

    assert len(graph.extremities) <= MAX_BRANCHES
    assert graph.state == resolution(graph, [*topics, *said])


def test_branch_that_holds_something_of_its_own_is_kept() -> None:
    """No entry of the state is lost, however many there are."""
    graph = silent()
    base = graph.events[-1]
    events = [
        graph.send("org.example.state", BOB, {}, f"{number}", after=[base])
        for number in range(MAX_BRANCHES + 10)
    ]

    assert graph.state == resolution(graph, events)
    assert {key for kind, key in graph.state if kind == "org.example.state"} == {
        f"{number}" for number in range(len(events))
    }


def test_many_branches_cost_no_more_than_their_number() -> None:
    """A thousand branches delay other requests by moments, not by minutes."""
    graph = silent()
    base = graph.events[-1]
    events = [
        graph.make("m.room.topic", BOB, {"topic": f"{number}"}, "", after=[base], at=1_000)
        for number in range(1_000)
    ]
    slowest = 0.0
    for event in events:
        start = time.thread_time()
        graph.receive(event)
        slowest = max(slowest, time.thread_time() - start)

    assert slowest < 0.5
    assert len(graph.extremities) <= MAX_BRANCHES


def test_receiving_order_does_not_matter_with_many_branches() -> None:
    """Two servers that receive the branches in different orders agree."""
    graph = silent()
    base = graph.events[-1]
    start = len(graph.events)
    graph.member(EVE, "ban", CAROL, after=[base])
    siblings(graph, base, 2 * MAX_EXTREMITIES)
    graph.send("m.room.topic", BOB, {"topic": "x"}, "", after=[base])

    other: Replica = graph.replica()
    other.receive_all([*graph.events[:start], *reversed(graph.events[start:])])

    assert (other.state, other.extremities) == (graph.state, graph.extremities)
