"""Laws of another process that shows a room: it has what the writer's process has."""

from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from homeserver.protocol.events import Event
from tests.rooms.inbound.follower import Follower, events_of, shown_by
from tests.rooms.inbound.replica import Graph, Replica
from tests.rooms.inbound.test_completion_laws import LateServer, rooms
from tests.rooms.inbound.test_event_graph_laws import forked_graphs

PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)
WHOLE = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    phases=PHASES,
)


def assert_same(replica: Replica, follower: Follower) -> None:
    """The follower's room, and all events that it holds, are those of the replica."""
    follower.read()

    assert shown_by(follower.room) == shown_by(replica.room)
    own, others = events_of(replica, follower)
    assert others == own


@WHOLE
@given(forked_graphs(), st.data())
def test_room_is_that_of_its_writer(graph: Graph, data: st.DataObject) -> None:
    """With forks, redactions that come before or after their targets, and refused events."""
    other = graph.replica()
    follower = Follower(other)

    other.receive_all(data.draw(st.permutations(graph.events)))

    assert_same(other, follower)


@WHOLE
@given(forked_graphs(), st.data())
def test_room_is_that_of_a_writer_who_backfills(graph: Graph, data: st.DataObject) -> None:
    """The room was joined in the middle, with gaps in its timeline, and its past came later."""
    places = [place for place, event in enumerate(graph.events) if graph.stored(event).position]
    assume(len(places) > 1)
    place = data.draw(st.sampled_from(places[1:]))
    other = graph.replica()
    follower = Follower(other)

    _receive(graph, other, graph.events[place], is_remote_join=True)
    for event in data.draw(st.permutations(graph.events[place + 1 :])):
        _receive(graph, other, event)
    past = st.lists(st.sampled_from(graph.events[:place]), unique=True)
    for event in data.draw(past):
        _receive(graph, other, event, is_backfilled=True)

    assert_same(other, follower)


@WHOLE
@given(rooms(), st.booleans())
def test_room_is_that_of_a_writer_who_joined_with_partial_state(
    room: tuple[Graph, Event], reads_meanwhile: bool
) -> None:
    """Events that were checked again, and removed from the timeline or added to it, included."""
    graph, join = room
    late = LateServer(graph, join)
    follower = Follower(late.replica)
    late.enter()
    follower.read()

    for event in graph.events[graph.events.index(join) + 1 :]:
        late.receive(event)
        if reads_meanwhile:
            follower.read()
    late.complete()

    assert late.replica.room.partial is None
    assert_same(late.replica, follower)


def _authorising(graph: Graph, event: Event) -> list[Event]:
    """The events of the state before an event, and all that authorises them."""
    found: set[str] = set()
    waiting = [*graph.state_at(graph.stored(event).state_before).values(), *event.auth_event_ids]
    by_id = {each.event_id: each for each in graph.events}
    while waiting:
        event_id = waiting.pop()
        if event_id not in found:
            found.add(event_id)
            waiting += by_id[event_id].auth_event_ids
    return [each for each in graph.events if each.event_id in found]


def _receive(
    graph: Graph, replica: Replica, event: Event, *, is_remote_join: bool = False, **how: bool
) -> None:
    """Receive an event, with the state before it where the replica lacks what it follows."""
    receiving, writer, state = replica.receiving, replica.writer, None
    replica.run(receiving.outliers(writer, _authorising(graph, event)))
    if is_remote_join or not all(_is_placed(replica, prev) for prev in event.prev_event_ids):
        ids = graph.state_at(graph.stored(event).state_before).values()
        state = replica.run(receiving.state_of(writer, ids))
    replica.receive(event, state_before=state, is_remote_join=is_remote_join, **how)


def _is_placed(replica: Replica, event_id: str) -> bool:
    stored = replica.stores.events.cached_id(replica.room.room_id, event_id)
    return stored is not None and not stored.status.is_outlier
