"""The forward extremities after the re-check of a room that had partial state.

They are the accepted events that no accepted event follows, whatever the checks by the partial
state had accepted or refused.

Spec: https://spec.matrix.org/v1.19/server-server-api/#soft-failure
"""

from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import ACCEPTED
from tests.rooms.inbound.replica import ALICE, BOB, CAROL, DAVE, Graph
from tests.rooms.inbound.test_completion_laws import ZOE, LateServer


class LateZoe:
    """Zoe's server has joined a room without its members, and so does not know of Dave's ban."""

    def __init__(self) -> None:
        self.graph = Graph("11")
        self.graph.public()
        self.graph.join(BOB)
        self.graph.join(CAROL)
        self._before_ban = self.graph.events[-1]
        self.graph.member(DAVE, "ban", ALICE)
        self.join = self.graph.join(ZOE)
        self.server = LateServer(self.graph, self.join)
        self.server.enter()

    def say(self, *after: Event) -> Event:
        """Receive a message that all servers accept."""
        said = self.graph.say(BOB, f"{len(self.graph.events)}", after=after)
        self.server.receive(said)
        return said

    def join_of_dave(self, *after: Event) -> Event:
        """Receive an event that full state refuses, and partial state without the ban accepts."""
        cited = self.graph.auth_events(
            "m.room.member", DAVE, {"membership": "join"}, DAVE, [self._before_ban]
        )
        join = self.graph.join(DAVE, after=after, auth=cited)
        self.server.receive(join)
        assert self.server.replica.stored(join).status == ACCEPTED
        return join

    def say_after_gap(self, *after: Event) -> Event:
        """Receive a message, but not the events that it follows."""
        said = self.graph.say(BOB, f"{len(self.graph.events)}", after=after)
        self.server.receive_after_gap(said)
        return said

    def backfill(self, event: Event) -> None:
        """Receive an event that another one follows."""
        assert (self.server.replica.receive(event).position or 0) < 0

    def complete(self) -> set[str]:
        """Complete the state; the forward extremities that result."""
        self.server.complete()
        return self.server.replica.extremities


def test_event_after_a_refused_one_replaces_the_join() -> None:
    """A refused event does not keep the events before it, although clients were shown it."""
    late = LateZoe()
    said = late.say(late.join_of_dave(late.join))

    extremities = late.complete()

    assert extremities == late.graph.extremities == {said.event_id}


def test_event_after_several_refused_ones_replaces_the_join() -> None:
    """Dave's server continues without his ban, until another server follows its events."""
    late = LateZoe()
    refused = late.join_of_dave(late.join)
    for _ in range(3):
        refused = late.join_of_dave(refused)
    said = late.say(refused)

    extremities = late.complete()

    assert extremities == late.graph.extremities == {said.event_id}


def test_refused_event_gives_back_the_one_before_it() -> None:
    """The next local event follows what all servers accept."""
    late = LateZoe()
    late.join_of_dave(late.join)

    extremities = late.complete()

    assert extremities == late.graph.extremities == {late.join.event_id}


def test_refused_event_does_not_give_back_one_that_another_event_follows() -> None:
    """Only one of two branches is refused."""
    late = LateZoe()
    late.join_of_dave(late.join)
    said = late.say(late.join)

    extremities = late.complete()

    assert extremities == late.graph.extremities == {said.event_id}


def test_event_after_a_backfilled_one_replaces_those_before_both() -> None:
    """A server that had a gap has the forward extremities of the others, once it has no gap."""
    late = LateZoe()
    known = late.say(late.join)
    missed = late.graph.say(BOB, "missed", after=[known])
    said = late.say_after_gap(missed)
    assert late.server.replica.extremities == {known.event_id, said.event_id}
    late.backfill(missed)

    extremities = late.complete()

    assert extremities == late.graph.extremities == {said.event_id}
