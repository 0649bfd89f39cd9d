"""Redactions by users of other servers, before and after their targets, by the rights they have.

Spec: https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
"""

import pytest

from homeserver.protocol.events import Event
from tests.rooms.inbound.replica import ALICE, BOB, CAROL, Graph, Replica

EVE = "@eve:two.example"  # of the same server as Bob

ALL_VERSIONS = pytest.mark.parametrize("version", ["1", "3", "6", "10", "11", "12"])
REDACTION_BY_EFFECT = pytest.mark.parametrize("version", ["3", "6", "10", "11", "12"])


def room(version: str) -> Graph:
    graph = Graph(version)
    graph.public()
    for user_id in (BOB, CAROL, EVE):
        graph.join(user_id)
    return graph


def times_shown(replica: Replica, event: Event) -> int:
    return replica.shown.count(replica.stored(event))


def is_redacted(replica: Replica, event: Event) -> bool:
    return replica.stored(event).redaction is not None


@ALL_VERSIONS
@pytest.mark.parametrize("by", [ALICE, BOB])
def test_redaction_takes_effect(version: str, by: str) -> None:
    """Moderators redact any message, and users redact their own."""
    graph = room(version)
    said = graph.say(BOB)

    graph.redact(by, said.event_id)

    assert is_redacted(graph, said)


@ALL_VERSIONS
@pytest.mark.parametrize("by", [ALICE, BOB])
def test_redaction_that_comes_before_its_target_takes_effect(version: str, by: str) -> None:
    """Events arrive in any order, and a late event is not shown unredacted."""
    graph = room(version)
    base = graph.events[-1]
    said = graph.say(BOB)
    redaction = graph.redact(by, said.event_id, after=[base])
    other = graph.replica()
    other.receive_all(graph.events[:-2])

    other.receive(redaction)
    other.receive(said)

    assert is_redacted(other, said)


@REDACTION_BY_EFFECT
def test_redaction_without_the_right_is_an_event_without_effect(version: str) -> None:
    """The event is accepted, since a server that checks it may lack its target."""
    graph = room(version)
    said = graph.say(BOB)

    redaction = graph.redact(CAROL, said.event_id)

    assert graph.stored(redaction).status.rejected is None
    assert not is_redacted(graph, said)
    assert times_shown(graph, redaction) == 0


@pytest.mark.parametrize("version", ["11", "12"])
@pytest.mark.parametrize(("by", "takes_effect"), [(ALICE, True), (CAROL, False)])
def test_redaction_as_state_needs_the_same_right(version: str, by: str, takes_effect: bool) -> None:
    """State is always shown, but it redacts only what its sender may redact."""
    graph = room(version)
    levels = {"users": {} if version == "12" else {ALICE: 100}, "state_default": 0}
    graph.send("m.room.power_levels", ALICE, levels, "")
    said = graph.say(BOB)

    redaction = graph.send("m.room.redaction", by, {"redacts": said.event_id}, "k")

    assert graph.state["m.room.redaction", "k"] == redaction.event_id
    assert times_shown(graph, redaction) == 1
    assert is_redacted(graph, said) == takes_effect


@REDACTION_BY_EFFECT
def test_early_redaction_is_shown_once_its_target_arrives(version: str) -> None:
    """A client cannot apply a redaction of an event that it does not have."""
    graph = room(version)
    base = graph.events[-1]
    said = graph.say(BOB)
    redaction = graph.redact(ALICE, said.event_id, after=[base])
    other = graph.replica()
    other.receive_all(graph.events[:-2])

    other.receive(redaction)
    before = times_shown(other, redaction)
    other.receive(said)

    assert before == 0
    assert other.shown[-2:] == [other.stored(said), other.stored(redaction)]
    assert times_shown(other, redaction) == 1
    assert other.shown[-1].position == other.room.last_position
    assert other.writer.extremities.events == (other.stored(redaction), other.stored(said))


@pytest.mark.parametrize("version", ["1", "2"])
def test_first_versions_withhold_no_redaction(version: str) -> None:
    """There the auth rules check the right to redact, whatever the target is."""
    graph = room(version)

    redaction = graph.redact(BOB, "$unknown:two.example")

    assert times_shown(graph, redaction) == 1


@REDACTION_BY_EFFECT
def test_withheld_redaction_is_shown_when_its_target_is_backfilled(version: str) -> None:
    """A client that pages back sees the event redacted; one that syncs sees the redaction."""
    graph = room(version)
    base = graph.events[-1]
    said = graph.say(BOB)
    redaction = graph.redact(ALICE, said.event_id, after=[base])
    other = graph.replica()
    other.receive_all(graph.events[:-2])
    other.receive(redaction)

    other.receive(said, is_backfilled=True)

    assert (other.stored(said).position or 0) < 0
    assert is_redacted(other, said)
    assert other.shown[-1] == other.stored(redaction)


@REDACTION_BY_EFFECT
def test_withheld_redaction_of_backfill_is_shown_in_history(version: str) -> None:
    """No sync shows old redactions; backfill fetches the newest part first."""
    graph = room(version)
    base = graph.events[-1]
    said = graph.say(BOB)
    redaction = graph.redact(ALICE, said.event_id, after=[base])
    other = graph.replica()
    other.receive_all(graph.events[:-2])
    other.receive(redaction, is_backfilled=True)
    before = other.stored(redaction).is_redaction_pending

    other.receive(said, is_backfilled=True)

    assert before
    assert (other.stored(redaction).position or 0) < 0
    assert is_redacted(other, said)
    assert times_shown(other, redaction) == 0


@REDACTION_BY_EFFECT
def test_withheld_redaction_of_a_setting_takes_effect_when_the_setting_is_known(
    version: str,
) -> None:
    """State that was fetched from other servers is shown redacted too."""
    graph = room(version)
    base = graph.events[-1]
    topic = graph.send("m.room.topic", ALICE, {"topic": "x"}, "")
    redaction = graph.redact(ALICE, topic.event_id, after=[base])
    other = graph.replica()
    other.receive_all(graph.events[:-2])
    other.receive(redaction)

    other.run(other.receiving.outliers(other.writer, [topic]))
    other.publish()

    assert is_redacted(other, topic)
    assert times_shown(other, redaction) == 1


def test_redaction_of_a_rejected_event_is_pending() -> None:
    """It is no partner for a redaction, and no client sees it."""
    graph = room("11")
    said = graph.say("@mallory:two.example")

    redaction = graph.redact(ALICE, said.event_id)

    assert graph.stored(said).status.rejected is not None
    assert graph.stored(redaction).is_redaction_pending


def test_event_follows_a_pending_redaction() -> None:
    """It is part of the graph, though no client sees it, and its branch is not left behind."""
    graph = room("11")
    base = graph.events[-1]
    graph.send("m.room.topic", ALICE, {"topic": "x"}, "", after=[base])
    redaction = graph.redact(BOB, "$unknown", after=[base])

    sent = graph.say(BOB, after=[redaction])

    assert graph.stored(redaction).is_redaction_pending
    assert graph.stored(sent) in graph.writer.extremities.events
    assert len(graph.extremities) == 2
    assert graph.shown_state == graph.state


@REDACTION_BY_EFFECT
def test_early_redaction_without_the_right_has_no_effect_either(version: str) -> None:
    """An early redaction needs the same right as a late one."""
    graph = room(version)
    base = graph.events[-1]
    said = graph.say(BOB)
    redaction = graph.redact(CAROL, said.event_id, after=[base])
    other = graph.replica()
    other.receive_all(graph.events[:-2])

    other.receive(redaction)
    other.receive(said)

    assert other.stored(redaction).is_redaction_pending
    assert not is_redacted(other, said)
    assert not other.writer.pending_redactions.targets


@REDACTION_BY_EFFECT
def test_right_is_that_of_the_time_of_the_redaction(version: str) -> None:
    """A moderator who was demoted later had the power when they used it."""
    graph = room(version)
    graph.levels(users={ALICE: 100, CAROL: 50})
    base = graph.events[-1]
    said = graph.say(BOB)
    graph.levels(users={ALICE: 100})

    redaction = graph.redact(CAROL, said.event_id, after=[base])

    assert graph.stored(redaction).status.soft_failed is None
    assert is_redacted(graph, said)


@REDACTION_BY_EFFECT
def test_server_speaks_for_its_users(version: str) -> None:
    """If both senders are users of one server, that server vouches for the redaction."""
    graph = room(version)
    said = graph.say(BOB)

    graph.redact(EVE, said.event_id)

    assert is_redacted(graph, said)


@pytest.mark.parametrize("version", ["1", "2"])
def test_first_versions_reject_a_redaction_without_the_right(version: str) -> None:
    """There the event id names the target's server, and the auth rules check the right by it."""
    graph = room(version)
    said = graph.say(BOB)

    redaction = graph.redact(CAROL, said.event_id)

    assert graph.stored(redaction).status.rejected is not None
    assert not is_redacted(graph, said)


def test_soft_failed_redaction_has_no_effect() -> None:
    """A banned moderator does not redact the room from behind."""
    graph = room("11")
    graph.levels(users={ALICE: 100, CAROL: 50})
    said = graph.say(BOB)
    graph.member(CAROL, "ban", ALICE)

    redaction = graph.redact(CAROL, said.event_id, after=[said])

    assert graph.stored(redaction).status.soft_failed is not None
    assert not is_redacted(graph, said)


def test_soft_failed_early_redaction_has_no_effect() -> None:
    """Nor if the target comes later."""
    graph = room("11")
    graph.levels(users={ALICE: 100, CAROL: 50})
    base = graph.events[-1]
    ban = graph.member(CAROL, "ban", ALICE)
    said = graph.say(BOB)
    redaction = graph.redact(CAROL, said.event_id, after=[base])
    other = graph.replica()
    other.receive_all([*graph.events[:-3], ban])

    other.receive(redaction)
    other.receive(said)

    assert not is_redacted(other, said)


def test_backfilled_redaction_takes_effect() -> None:
    """A client that pages back does not get content redacted before this server's join."""
    graph = room("11")
    said = graph.say(BOB)
    redaction = graph.redact(BOB, said.event_id)
    other = graph.replica()
    other.receive_all(graph.events[:-1])

    stored = other.receive(redaction, is_backfilled=True)

    assert stored.position is not None
    assert stored.position < 0
    assert is_redacted(other, said)


@ALL_VERSIONS
def test_redaction_does_not_reach_into_another_room(version: str) -> None:
    """The rights are those of one room."""
    graph, other_graph = room(version), Graph(version)
    other_graph.public()
    said = other_graph.say(ALICE)

    redaction = graph.redact(ALICE, said.event_id)
    graph.db.other_rooms[said.event_id] = [2]

    assert graph.stored(redaction).status.rejected is None
    assert not is_redacted(other_graph, said)


@pytest.mark.parametrize("target", ["", "no id", "$\0:one.example", "$" + "x" * 3_000])
def test_redaction_of_an_invalid_event_id_is_not_stored(target: str) -> None:
    """Another server may name anything as target, and the database would refuse some of it."""
    graph = room("11")

    redaction = graph.redact(ALICE, target)

    assert graph.stored(redaction).is_redaction_pending
    assert not graph.writer.pending_redactions.targets
