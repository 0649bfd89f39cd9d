"""The forward extremities after the re-check of a room that had partial state.

They are the accepted events that no accepted event follows, whatever the checks by the partial
state had accepted or refused.

Spec: https://spec.matrix.org/v1.19/server-server-api/#soft-failure
"""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import EventDraft
from homeserver.rooms.events.stored_event import ACCEPTED, StoredEvent
from homeserver.storage.rooms.event_graph import events_to_recheck
from tests.rooms.inbound.replica import ALICE, BOB, CAROL, DAVE, Graph, Replica
from tests.rooms.inbound.test_completion_laws import ZOE, LateServer, rooms

LAWS = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
UNKNOWN = "$" + 43 * "u"


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

    def send_during_recheck(self, *drafts: EventDraft) -> list[StoredEvent]:
        """The events that a local user sends once the events to check again have been read."""
        sent: list[StoredEvent] = []
        replica, query = self.server.replica, self.server.replica.db.run

        async def run(function: Any, *args: Any) -> Any:
            rows = await query(function, *args)
            if function is events_to_recheck:
                sent.extend([await replica.writer.send(draft) for draft in drafts])
            return rows

        replica.db.run = run
        return sent

    def lose(self, event: Event) -> None:
        """Have the database return all events but this one."""
        replica, query = self.server.replica, self.server.replica.db.run
        lost = replica.stored(event).event_nid

        async def run(function: Any, *args: Any) -> Any:
            rows = await query(function, *args)
            if function is events_to_recheck:
                return [row for row in rows if row[1] != lost]
            return rows

        replica.db.run = run

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


def test_events_that_waited_for_a_backfilled_one_are_checked_in_order() -> None:
    """The second one follows the first, and so does its state."""
    late = LateZoe()
    missed = late.graph.say(BOB, "missed", after=[late.say(late.join)])
    first = late.say_after_gap(missed)
    second = late.say_after_gap(first, missed)
    late.backfill(missed)

    extremities = late.complete()

    assert extremities == late.graph.extremities == {second.event_id}


def test_recheck_ends_without_a_previous_event_that_is_not_stored() -> None:
    """A room gets full state even if the database lacks an event that memory has."""
    late = LateZoe()
    missed = late.graph.say(BOB, "missed", after=[late.say(late.join)])
    said = late.say_after_gap(missed)
    late.backfill(missed)
    late.lose(missed)

    extremities = late.complete()

    assert said.event_id in extremities
    assert late.server.replica.room.partial is None


@pytest.mark.parametrize("is_followed", [False, True])
def test_local_redaction_without_its_target_is_checked_again(is_followed: bool) -> None:
    """It has no place in the timeline, and is part of the graph like any other local event."""
    late = LateZoe()
    redaction = EventDraft("m.room.redaction", ZOE, {"redacts": UNKNOWN}, redacts=UNKNOWN)
    message = EventDraft("m.room.message", ZOE, {"body": "after it"})
    sent = late.send_during_recheck(redaction, *([message] if is_followed else []))

    extremities = late.complete()

    assert sent[0].is_redaction_pending
    assert extremities == {sent[-1].event.event_id}
    full_state = late.graph.state_at(late.graph.stored(late.join).state_after)
    for stored in sent:
        assert late.server.replica.state_at(stored.state_before) == full_state


@LAWS
@given(rooms(), st.data())
def test_gaps_leave_no_trace(room: tuple[Graph, Event], data: st.DataObject) -> None:
    """Events that were missing and were backfilled count like those that arrived in order."""
    graph, join = room
    server = LateServer(graph, join)
    server.enter()
    since = graph.events[graph.events.index(join) + 1 :]
    missed = [event for event in since if data.draw(st.integers(0, 2)) == 0]
    for event in [*(event for event in since if event not in missed), *reversed(missed)]:
        server.receive_after_gap(event)

    server.complete()

    replica = server.replica
    for event in since:
        remote, local = graph.stored(event), replica.stored(event)
        assert (local.status.rejected is None) == (remote.status.rejected is None)
        assert replica.state_at(local.state_before) == graph.state_at(remote.state_before)
    assert replica.extremities == unfollowed(replica, [join, *since])


def unfollowed(replica: Replica, events: Sequence[Event]) -> set[str]:
    """The accepted events that no accepted event follows; backfilled events count as neither."""
    by_id = {event.event_id: event for event in events}
    accepted = [event for event in events if is_accepted(replica.stored(event))]
    followed: set[str] = set()
    waiting = [event_id for event in accepted for event_id in event.prev_event_ids]
    while waiting:
        event_id = waiting.pop()
        if event_id in by_id and event_id not in followed:
            followed.add(event_id)
            waiting += by_id[event_id].prev_event_ids
    return {event.event_id for event in accepted} - followed


def is_accepted(stored: StoredEvent) -> bool:
    is_backfilled = stored.position is not None and stored.position < 0
    return stored.status == ACCEPTED and not is_backfilled
