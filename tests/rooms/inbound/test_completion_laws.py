"""Laws of partial state: a server that joined without members ends like all others."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from homeserver.protocol.errors import Unavailable
from homeserver.protocol.event_graph import in_auth_order
from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.inbound.event_checks import EventsMissing
from homeserver.rooms.inbound.partial_state_completion import PartialStateCompletion
from homeserver.rooms.inbound.remote_join import RemoteJoin
from homeserver.storage.rooms import event_graph
from tests.rooms.inbound.replica import ALICE, BOB, CAROL, DAVE, Graph, Replica

MANY = 1_000  # batches of the log
ASKED = (event_graph.accepted_state, event_graph.events_to_recheck)
ZOE = "@zoe:five.example"
PEOPLE = (ALICE, BOB, CAROL, DAVE)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
WHOLE = settings(
    deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow], phases=PHASES
)


class LateServer:
    """A server that joins a room with the state that a graph gives it, without the members."""

    def __init__(self, graph: Graph, join: Event) -> None:
        self.graph = graph
        self.join = join
        self.replica = Replica("five.example", graph.version, graph.room.room_id)
        self.replica.db.run = self._query(self.replica.db.run)
        rooms: Any = SimpleNamespace(entering=self._entering)
        stores = self.replica.stores
        self.remote_join = RemoteJoin(
            stores.log, stores.states.threads, rooms, self.replica.receiving
        )
        self.completion = PartialStateCompletion(stores, self.replica.receiving, self.replica.db)
        state = graph.state_at(graph.stored(join).state_before)
        self.members = [id_ for key, id_ in state.items() if key[0] == "m.room.member"]
        self.others = [id_ for key, id_ in state.items() if key[0] != "m.room.member"]

    def enter(self) -> None:
        """Enter the room without its members."""
        chain = self._chain([*self.others, *self.join.auth_event_ids])
        state = [self._event(event_id) for event_id in self.others]
        known = {*self.others}
        rest = [event for event in chain if event.event_id not in known]
        self._run(self.remote_join.admit(self.join, state, rest, ["one.example"]))

    def receive(self, event: Event) -> None:
        """Receive an event, and before it what authorises it."""
        try:
            self.replica.receive(event)
        except EventsMissing as missing:
            self.keep(self._chain(missing.auth))
            self.replica.receive(event)

    def receive_after_gap(self, event: Event) -> None:
        """Receive an event; if previous ones are missing, with the state before it."""
        try:
            self.receive(event)
        except EventsMissing:
            state = self.graph.state_at(self.graph.stored(event).state_before)
            self.keep(self._chain([*state.values(), *event.auth_event_ids]))
            receiver, writer = self.replica.receiving, self.replica.writer
            before = self.replica.run(receiver.state_of(writer, set(state.values())))
            self.replica.receive(event, state_before=before)

    def complete(self) -> None:
        """Fetch the members, and complete the state of the room."""
        self.keep(self._chain(self.members))
        self._run(self.completion.complete(self.replica.writer, self.members))

    def keep(self, events: Iterable[Event]) -> None:
        self._run(self.replica.receiving.outliers(self.replica.writer, in_auth_order(events)))

    def _run(self, coroutine: Any) -> None:
        """Run what waits for nothing but the log, however often."""
        outcome: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
        for _ in range(MANY):
            if outcome:
                break
            self.replica.publish()
        assert outcome, "it waits for something"
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        self.replica.publish()

    def _event(self, event_id: str) -> Event:
        return next(event for event in self.graph.events if event.event_id == event_id)

    def _chain(self, event_ids: Iterable[str]) -> list[Event]:
        """Events with all that authorises them."""
        found: dict[str, Event] = {}
        waiting = [*event_ids, self.graph.create.event_id]
        while waiting:
            event_id = waiting.pop()
            if event_id not in found:
                found[event_id] = self._event(event_id)
                waiting += found[event_id].auth_event_ids
        return list(found.values())

    @asynccontextmanager
    async def _entering(self, *_: Any) -> AsyncIterator[Any]:
        yield self.replica.writer

    def _query(self, otherwise: Any) -> Any:
        """Answer queries about events like a database."""

        async def run(function: Any, *args: Any) -> Any:
            cached = self.replica.stores.events.cached_id
            stored = [
                found
                for event in self.graph.events
                if (found := cached(self.graph.room.room_id, event.event_id)) is not None
            ]
            db, nids = self.replica.db, self.replica.db.nids
            if function in ASKED and db.answers_left is not None:
                if not db.answers_left:
                    raise Unavailable("the database is unavailable")
                db.answers_left -= 1
            if function is event_graph.accepted_state:
                return [
                    (nids[each.event.type], nids[each.event.state_key or ""], each.event_nid)
                    for each in stored
                    if each.event.event_id in args[1] and each.status.rejected is None
                ]
            if function is event_graph.events_to_recheck:
                since, after, limit = args[1:]
                rows = sorted(
                    (_place(each), each.event_nid)
                    for each in stored
                    if not each.status.is_outlier and _is_rechecked(each, since)
                )
                return [row for row in rows if row[0] > after][:limit]
            return await otherwise(function, *args)

        return run


def _place(stored: StoredEvent) -> int:
    """The place of an event in the order of the query `events_to_recheck`."""
    position = stored.position or 0
    return position if position > 0 else stored.stored_at


def _is_rechecked(stored: StoredEvent, since: int) -> bool:
    """Whether that query returns an event that is no outlier."""
    return stored.position is None or _place(stored) >= since


@st.composite
def rooms(draw: st.DrawFn) -> tuple[Graph, Event]:
    """A room, its members before Zoe's join, and the events after it on any branches."""
    graph = Graph(draw(st.sampled_from(["1", "2", "6", "9", "11", "12"])))
    graph.public()
    for user_id in PEOPLE[1:]:
        how = draw(st.sampled_from(["join", "join", "left", "ban", "invite", "none"]))
        if how == "invite":
            graph.member(user_id, "invite", ALICE)
        elif how != "none":
            graph.join(user_id)
        if how == "left":
            graph.member(user_id, "leave")
        elif how == "ban":
            graph.member(user_id, "ban", ALICE)
    graph.levels(users={ALICE: 100, BOB: 50, CAROL: 50})
    join = graph.join(ZOE)
    since = len(graph.events) - 1
    for _ in range(draw(st.integers(0, 9))):
        _act(draw, graph, since)
    return graph, join


def _act(draw: st.DrawFn, graph: Graph, since: int) -> None:
    newest = graph.events[since:][-5:]
    after = draw(st.lists(st.sampled_from(newest), min_size=1, max_size=3, unique=True))
    event_type, by, content, state_key = _label(draw, str(len(graph.events)))
    cited = None
    if draw(st.booleans()):
        # Some events cite a membership that has ended.
        then = [draw(st.sampled_from(graph.events))]
        cited = graph.auth_events(event_type, by, content, state_key, then)
    at = draw(st.integers(0, 30))
    graph.send(event_type, by, content, state_key, after=after, auth=cited, at=at)


def _label(draw: st.DrawFn, text: str) -> tuple[str, str, dict[str, Any], str | None]:
    by, target = draw(st.sampled_from((*PEOPLE, ZOE))), draw(st.sampled_from(PEOPLE))
    match draw(st.sampled_from(["member", "own", "levels", "topic", "say", "say"])):
        case "member":
            membership = draw(st.sampled_from(["leave", "ban", "invite"]))
            return "m.room.member", by, {"membership": membership}, target
        case "own":
            membership = draw(st.sampled_from(["join", "leave"]))
            return "m.room.member", by, {"membership": membership}, by
        case "levels":
            users = {who: draw(st.integers(0, 100)) for who in (BOB, CAROL)}
            return "m.room.power_levels", by, {"users": users}, ""
        case "topic":
            return "m.room.topic", by, {"topic": text}, ""
    return "m.room.message", by, {"body": text}, None


@WHOLE
@given(rooms())
def test_it_ends_with_the_result_of_all_others(room: tuple[Graph, Event]) -> None:
    """No valid event stays refused, no invalid one accepted, and the state equals that of all
    servers.
    """
    graph, join = room
    late = LateServer(graph, join)
    late.enter()
    since = graph.events[graph.events.index(join) + 1 :]
    for event in since:
        late.receive(event)

    late.complete()

    replica = late.replica
    for event in (join, *since):
        remote, local = graph.stored(event), replica.stored(event)
        assert (local.status.rejected is None) == (remote.status.rejected is None)
        assert (local.status.soft_failed is None) == (remote.status.soft_failed is None)
        assert replica.state_at(local.state_before) == graph.state_at(remote.state_before)
        assert replica.state_at(local.state_after) == graph.state_at(remote.state_after)
        assert (local.position is None) == (remote.position is None)
    assert replica.extremities == graph.extremities
    assert replica.state == graph.state
    shown = {stored.event.event_id for stored in replica.room.timeline}
    assert shown == {e.event_id for e in (join, *since) if graph.stored(e).position is not None}


@WHOLE
@given(rooms())
def test_subscribers_get_each_change_of_the_state(room: tuple[Graph, Event]) -> None:
    """The members that clients see are those of the server's current state."""
    graph, join = room
    late = LateServer(graph, join)
    late.enter()
    assert late.replica.shown_state == late.replica.state
    for event in graph.events[graph.events.index(join) + 1 :]:
        late.receive(event)
        assert late.replica.shown_state == late.replica.state

    late.complete()

    assert late.replica.shown_state == late.replica.state
    joined = sum(membership == "join" for membership in late.replica.room.members.values())
    assert late.replica.room.joined_count == joined
    assert late.replica.room.partial is None


@WHOLE
@given(rooms(), st.integers(0, 25))
def test_an_attempt_may_end_anywhere(room: tuple[Graph, Event], answers: int) -> None:
    """The database becomes unavailable in the middle; the repeated attempt has the same result."""
    graph, join = room
    late = LateServer(graph, join)
    late.enter()
    for event in graph.events[graph.events.index(join) + 1 :]:
        late.receive(event)

    late.replica.db.answers_left = answers
    with suppress(Unavailable):
        late.complete()
    late.replica.db.answers_left = None
    if late.replica.room.partial is not None:
        late.complete()

    replica = late.replica
    for event in graph.events[graph.events.index(join) :]:
        remote, local = graph.stored(event), replica.stored(event)
        assert replica.state_at(local.state_after) == graph.state_at(remote.state_after)
        assert (local.position is None) == (remote.position is None)
    assert replica.shown_state == replica.state == graph.state
    assert replica.extremities == graph.extremities


@WHOLE
@given(rooms())
def test_nothing_is_rejected_before_the_room_has_full_state(room: tuple[Graph, Event]) -> None:
    """Rejection is permanent for all citing events, so it must not happen too early."""
    graph, join = room
    late = LateServer(graph, join)
    late.enter()
    for event in graph.events[graph.events.index(join) + 1 :]:
        late.receive(event)

    for event in graph.events:
        local = late.replica.stores.events.cached_id(graph.room.room_id, event.event_id)
        if local is not None and local.status.rejected is not None:
            assert graph.stored(event).status.rejected is not None
