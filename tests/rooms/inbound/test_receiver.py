"""The checks on receipt of a PDU, and the status that each gives an event.

Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
"""

import pytest
from twisted.internet.defer import Deferred

from homeserver.protocol.errors import Unavailable
from homeserver.rooms.events.event_draft import EventDraft, member_draft
from homeserver.rooms.inbound.event_checks import EventsMissing
from tests.rooms.inbound.replica import ALICE, BOB, CAROL, Graph

ALL_VERSIONS = pytest.mark.parametrize("version", ["1", "2", "3", "6", "9", "11", "12"])


def public_room(version: str = "11", *members: str) -> Graph:
    """A public room with some members."""
    graph = Graph(version)
    graph.public()
    for member in members:
        graph.join(member)
    return graph


@ALL_VERSIONS
def test_accepted_event_becomes_the_extremity_and_is_shown(version: str) -> None:
    """An event that passes all checks is a message like any other."""
    graph = public_room(version, BOB)

    stored = graph.stored(graph.say(BOB))

    assert stored.status.rejected is stored.status.soft_failed is None
    assert stored.position is not None
    assert graph.extremities == {stored.event.event_id}
    assert graph.room.timeline[-1] is stored


@ALL_VERSIONS
def test_event_that_its_auth_events_do_not_allow_is_rejected(version: str) -> None:
    """Check 4: a sender who cites no membership has shown no right to send."""
    graph = public_room(version, BOB)
    head = graph.extremities
    cited = list(graph.auth_events("m.room.message", BOB, {}, None, graph.events[-1:]))
    without_member = [each for each in cited if each.type != "m.room.member"]

    stored = graph.stored(graph.say(BOB, auth=without_member))

    assert stored.status.rejected is not None
    assert stored.status.rejected.startswith("rule ")
    assert "not in the room" in stored.status.rejected
    assert stored.position is None
    assert graph.extremities == head


@ALL_VERSIONS
def test_event_that_the_state_before_it_does_not_allow_is_rejected(version: str) -> None:
    """Check 5: a permission is void after it was revoked."""
    graph = public_room(version, BOB)
    join = graph.events[-1]
    ban = graph.member(BOB, "ban", ALICE)
    cited = graph.auth_events("m.room.message", BOB, {}, None, [join])

    stored = graph.stored(graph.say(BOB, after=[ban], auth=cited))

    assert stored.status.rejected is not None
    assert stored.status.soft_failed is None
    assert stored.position is None
    assert graph.extremities == {ban.event_id}


@ALL_VERSIONS
def test_event_that_the_current_state_does_not_allow_is_soft_failed(version: str) -> None:
    """Check 6: a banned user's server cannot go round the ban by citing the time before it."""
    graph = public_room(version, BOB)
    join = graph.events[-1]
    ban = graph.member(BOB, "ban", ALICE)

    stored = graph.stored(graph.say(BOB, after=[join]))

    assert stored.status.rejected is None
    assert stored.status.soft_failed is not None
    assert stored.status.soft_failed.startswith("rule ")
    assert stored.position is None
    assert graph.extremities == {ban.event_id}
    assert stored not in graph.room.timeline


def test_soft_failed_state_event_does_not_change_the_current_state() -> None:
    """A topic that a banned user set is not shown."""
    graph = public_room("11", BOB)
    graph.levels(users={ALICE: 100, BOB: 50})
    before = graph.events[-1]
    graph.member(BOB, "ban", ALICE)
    state = graph.state

    topic = graph.send("m.room.topic", BOB, {"topic": "mine"}, "", after=[before])

    assert graph.stored(topic).status.soft_failed is not None
    assert graph.state == state == graph.shown_state


def test_soft_failed_event_takes_part_once_another_follows_it() -> None:
    """Servers that saw the two in the other order have the topic, and all must come to agree."""
    graph = public_room("11", BOB, CAROL)
    graph.levels(users={ALICE: 100, BOB: 50})
    before = graph.events[-1]
    ban = graph.member(BOB, "ban", ALICE)
    topic = graph.send("m.room.topic", BOB, {"topic": "mine"}, "", after=[before])

    merged = graph.say(CAROL, after=[topic])

    stored = graph.stored(merged)
    assert stored.position is not None
    assert graph.state_at(stored.state_before)["m.room.topic", ""] == topic.event_id
    assert graph.extremities == {ban.event_id, merged.event_id}
    # State resolution orders the ban before the banned user's topic.
    assert ("m.room.topic", "") not in graph.state
    assert graph.shown_state == graph.state


@ALL_VERSIONS
def test_rejected_event_is_skipped_in_the_state_of_later_events(version: str) -> None:
    """One rejected event does not reject all events that follow it."""
    graph = public_room(version, BOB, CAROL)
    head = graph.events[-1]
    topic = graph.send("m.room.topic", BOB, {"topic": "no right"}, "")
    assert graph.stored(topic).status.rejected is not None

    reply = graph.stored(graph.say(CAROL, after=[topic]))

    assert reply.position is not None
    assert ("m.room.topic", "") not in graph.state_at(reply.state_after)
    assert graph.extremities == {reply.event.event_id}
    assert head.event_id not in graph.extremities


def test_event_that_cites_a_rejected_auth_event_is_rejected() -> None:
    """Rule 3.3: a refused event gives no right."""
    graph = public_room("11", BOB)
    forged = graph.levels(BOB, users={ALICE: 100, BOB: 100})
    assert graph.stored(forged).status.rejected is not None
    cited = graph.auth_events("m.room.topic", BOB, {}, "", graph.events[-1:])
    cited = [each for each in cited if each.type != "m.room.power_levels"]

    topic = graph.send("m.room.topic", BOB, {"topic": "mine"}, "", auth=[*cited, forged])

    refusal = graph.stored(topic).status.rejected
    assert refusal is not None
    assert "rejected" in refusal


def test_known_event_is_received_once() -> None:
    """Several servers send the same event, and some send it again."""
    graph = public_room("11", BOB)
    event = graph.say(BOB)
    head, position = graph.extremities, graph.log.position

    again = graph.receive(event)

    assert again is graph.stored(event)
    assert (graph.extremities, graph.log.position) == (head, position)


def test_missing_previous_events_are_reported() -> None:
    """The caller fetches them and retries; until then nothing has changed."""
    graph = public_room("11", BOB)
    other = graph.replica()
    other.receive_all(graph.events)
    first, second = graph.say(BOB), graph.say(BOB)

    with pytest.raises(EventsMissing) as missing:
        other.receive(second)

    assert (missing.value.prev, missing.value.auth) == ({first.event_id}, frozenset())
    assert other.stores.events.cached_id(other.room.room_id, second.event_id) is None
    other.receive_all([second, first])
    assert other.extremities == {second.event_id}


def test_missing_auth_events_are_reported() -> None:
    """The same holds for the events that authorise it."""
    graph = public_room("11")
    other = graph.replica()
    other.receive_all(graph.events)
    head = graph.events[-1]
    join = graph.join(BOB)
    said = graph.say(BOB, after=[head], auth=[graph.create, graph.events[2], join])

    with pytest.raises(EventsMissing) as missing:
        other.receive(said)

    assert (missing.value.auth, missing.value.prev) == ({join.event_id}, frozenset())


def test_event_without_previous_events_does_not_restart_the_room() -> None:
    """The state before it is empty, and allows nothing."""
    graph = public_room("11", BOB)
    head = graph.extremities

    stored = graph.stored(graph.say(BOB, after=[]))

    assert stored.status.rejected is not None
    assert graph.extremities == head


def test_receipt_fails_completely_while_the_database_is_unavailable() -> None:
    """Whichever query failed, the event can be received once the database is available again."""
    for answers in range(20):
        graph = public_room("11", BOB)
        event = graph.make("m.room.member", CAROL, {"membership": "join"}, CAROL)
        head, state = graph.extremities, graph.state
        graph.db.answers_left = answers

        try:
            graph.receive(event)
            break
        except Unavailable:
            graph.db.answers_left = None

        assert (graph.extremities, graph.state) == (head, state)
        assert graph.stores.events.cached_id(graph.room.room_id, event.event_id) is None
        assert graph.receive(event).position is not None
        assert graph.extremities == {event.event_id}
        assert graph.room.membership(CAROL) == "join"
    assert 0 < answers < 19, "it asked, and had its answers in the end"


def test_receipt_fails_completely_while_nothing_can_be_written() -> None:
    """An event that waits for the database is not lost, and no more are accepted."""
    graph = public_room("11", BOB)
    graph.say(BOB)
    other = graph.replica()
    other.receive_all(graph.events)
    first, second = graph.say(BOB), graph.say(BOB)
    other.db.is_read_only = True
    assert other.receive(first).position is not None
    assert other.room.timeline[-1].event != first, "it is not durable"

    with pytest.raises(Unavailable):
        other.receive(second)

    other.db.is_read_only = False
    other.clock.advance(1)
    assert other.room.timeline[-1].event == first
    assert other.receive(second).position is not None
    assert other.extremities == {second.event_id}


def test_local_events_are_sent_while_a_receipt_waits() -> None:
    """A slow look-up for a remote event does not stop the room; both are then there."""
    graph = public_room("11", BOB)
    graph.say(BOB)
    join = graph.make("m.room.member", CAROL, {"membership": "join"}, CAROL)
    graph.db.pause = Deferred()
    outcome: list[object] = []
    receipt = graph.receiving.receive(graph.writer, join)
    Deferred.fromCoroutine(receipt).addBoth(outcome.append)
    assert not outcome

    (local,), _ = graph.writer.append([EventDraft("m.room.message", ALICE, {"body": "meanwhile"})])
    pause, graph.db.pause = graph.db.pause, None
    pause.callback(None)
    graph.publish()

    assert len(outcome) == 1
    assert graph.extremities == {local.event.event_id, join.event_id}
    assert graph.room.membership(CAROL) == "join"


def test_soft_failure_depends_on_the_latest_current_state() -> None:
    """A ban that arrives while the banned user's event is being checked counts."""
    graph = public_room("11", BOB)
    event = graph.make("com.example.unheard_of", BOB, {"body": "quick"})
    graph.db.pause = Deferred()
    outcome: list[object] = []
    receipt = graph.receiving.receive(graph.writer, event)
    Deferred.fromCoroutine(receipt).addBoth(outcome.append)

    graph.writer.append([member_draft(ALICE, BOB, {"membership": "ban"})])
    pause, graph.db.pause = graph.db.pause, None
    pause.callback(None)
    graph.publish()

    assert graph.stored(event).status.soft_failed is not None
    assert graph.stored(event).position is None
