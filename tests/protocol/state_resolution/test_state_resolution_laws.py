"""Properties of state resolution in rooms with any history."""

from collections.abc import Collection, Mapping
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.protocol.events import Event
from homeserver.protocol.state_resolution.auth_graph import (
    auth_chain,
    auth_difference,
    events_between,
)
from homeserver.protocol.state_resolution.ordering import (
    mainline_ordered,
    power_levels_among,
    power_ordered,
)
from homeserver.protocol.state_resolution.resolution import split
from tests.protocol.authorization.auth_builders import ALICE, BOB, CAROL, DAVE
from tests.protocol.state_resolution.branches import Branch, ForkedRoom, public_room

PEOPLE = (ALICE, BOB, CAROL, DAVE)
Graph = dict[str, list[str]]  # event id -> ids of its auth events


@st.composite
def forked_rooms(draw: st.DrawFn) -> tuple[ForkedRoom, list[Branch]]:
    """A room with some branches on which users sent events that the rules allowed there."""
    version = draw(st.sampled_from(["1", "2", "6", "11", "12"]))
    main = public_room(version, *draw(st.sets(st.sampled_from(PEOPLE[1:]))), bob=50, carol=50)
    branches = [main.fork() for _ in range(draw(st.integers(2, 3)))]
    for number in range(draw(st.integers(0, 12))):
        branch = draw(st.sampled_from(branches))
        if draw(st.integers(0, 7)) == 0:
            branch.state = main.room.resolve(branch, draw(st.sampled_from(branches)))
        else:
            _act(draw, branch, str(number))
    return main.room, branches


def _act(draw: st.DrawFn, branch: Branch, name: str) -> None:
    by, target = draw(st.sampled_from(PEOPLE)), draw(st.sampled_from(PEOPLE))
    at = draw(st.integers(0, 20))
    match draw(st.sampled_from(["member", "levels", "rule", "topic"])):
        case "member":
            membership = draw(st.sampled_from(["join", "leave", "ban", "invite"]))
            branch.member(name, target, membership, by=by, at=at)
        case "levels":
            levels = {who: draw(st.integers(0, 100)) for who in ("bob", "carol")}
            branch.levels(name, by=by, at=at, **levels)
        case "rule":
            branch.join_rule(name, draw(st.sampled_from(["public", "invite"])), by=by, at=at)
        case "topic":
            branch.topic(name, by=by, at=at)


@settings(deadline=None)
@given(forked_rooms())
def test_order_of_the_states_does_not_matter(forked: tuple[ForkedRoom, list[Branch]]) -> None:
    """Servers see the branches in different orders and must agree all the same."""
    room, branches = forked

    results = [room.resolve(*some_order) for some_order in permutations(branches)]

    assert all(result == results[0] for result in results)


@settings(deadline=None)
@given(forked_rooms())
def test_resolved_state_consists_of_existing_events(
    forked: tuple[ForkedRoom, list[Branch]],
) -> None:
    """Entries without conflict stay, and nothing comes from outside the room's history."""
    room, branches = forked
    states = [branch.state for branch in branches]
    known = {event_id for state in states for event_id in state.values()}
    known |= auth_chain(known, lambda event_id: room.events[event_id].auth_event_ids)

    resolved = room.resolve(*branches)

    unconflicted, _ = split(states)
    assert unconflicted.items() <= resolved.items()
    assert set(resolved.values()) <= known
    for key, event_id in resolved.items():
        assert (room.events[event_id].type, room.events[event_id].state_key) == key


@settings(deadline=None)
@given(forked_rooms())
def test_resolution_of_one_state_is_that_state(forked: tuple[ForkedRoom, list[Branch]]) -> None:
    """A server that has resolved a fork and sees the same branch twice changes nothing."""
    room, branches = forked
    resolved = Branch(room, room.resolve(*branches))

    assert room.resolve(resolved) == resolved.state
    assert room.resolve(resolved, resolved) == resolved.state


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Events with some of the events before them as auth events."""
    names = [f"${number:02}" for number in range(draw(st.integers(1, 14)))]
    return {
        name: sorted(draw(st.sets(st.sampled_from(names[:place]), max_size=3))) if place else []
        for place, name in enumerate(names)
    }


def some_of(graph: Graph) -> st.SearchStrategy[set[str]]:
    return st.sets(st.sampled_from(sorted(graph)), max_size=5)


def chain_of(graph: Graph, event_id: str) -> set[str]:
    """The auth chain, by its definition."""
    cited = graph[event_id]
    return set(cited).union(*(chain_of(graph, each) for each in cited))


@given(
    graphs().flatmap(
        lambda graph: st.tuples(
            st.just(graph), some_of(graph), st.lists(some_of(graph), min_size=2, max_size=4)
        )
    )
)
def test_auth_difference_has_the_events_that_are_not_in_all_chains(
    example: tuple[Graph, set[str], list[set[str]]],
) -> None:
    """The short cut for the common part of the states agrees with the definition."""
    graph, common, own = example
    states = [common | some for some in own]
    chains = [state.union(*(chain_of(graph, each) for each in state)) for state in states]

    found = auth_difference(common, own, graph.__getitem__)

    assert found == set().union(*chains) - chains[0].intersection(*chains[1:])


@given(graphs().flatmap(lambda graph: st.tuples(st.just(graph), some_of(graph))))
def test_events_between_are_on_a_path_from_one_end_to_another(
    example: tuple[Graph, set[str]],
) -> None:
    """The conflicted state subgraph has the events that one needs to be allowed again, no more."""
    graph, ends = example

    found = events_between(ends, graph.__getitem__)

    below = set().union(*(chain_of(graph, end) for end in ends)) | ends
    assert found == {each for each in below if each in ends or chain_of(graph, each) & ends}


@given(
    graphs().flatmap(
        lambda graph: st.tuples(st.just(graph), some_of(graph), st.permutations(sorted(graph)))
    )
)
def test_power_order_is_the_smallest_that_respects_what_events_cite(
    example: tuple[Graph, set[str], list[str]],
) -> None:
    """Every server tries the same events in the same order, auth events first."""
    graph, wanted, by_power = example
    events = {name: _event(name, cited) for name, cited in graph.items()}

    ordered = power_ordered(
        wanted, events, graph.__getitem__, lambda event: -by_power.index(event.event_id)
    )

    assert [each.event_id for each in ordered] == _smallest_order(graph, wanted, by_power)


def _smallest_order(graph: Graph, wanted: Collection[str], ranked: list[str]) -> list[str]:
    """At each step, of the events without auth events in the rest of the set, the first in rank."""
    left, order = set(wanted), list[str]()
    while left:
        free = [each for each in ranked if each in left and not left.intersection(graph[each])]
        order.append(free[0])
        left.remove(free[0])
    return order


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.data())
def test_mainline_order_follows_the_definition(parents: list[int], data: st.DataObject) -> None:
    """Events based on older power levels are tried before those based on newer ones."""
    graph: Graph = {}
    for number, back in enumerate(parents):
        graph[f"${number:02}"] = [f"${number - back:02}"] if 0 < back <= number else []
    events = {name: _event(name, cited) for name, cited in graph.items()}
    newest = data.draw(st.sampled_from(sorted(graph)))
    mainline = [newest, *sorted(chain_of(graph, newest), reverse=True)]

    ordered = mainline_ordered(
        graph, events, newest, lambda name: power_levels_among(graph[name], events)
    )

    def position(name: str) -> int:
        chain = sorted(chain_of(graph, name), reverse=True)
        return next((mainline.index(each) for each in chain if each in mainline), len(graph))

    assert [each.event_id for each in ordered] == sorted(
        graph, key=lambda name: (-position(name), name)
    )


def _event(name: str, cited: list[str]) -> Event:
    """A power levels event; all have the same time."""
    content: Mapping[str, object] = {}
    return ForkedRoom("11").add(
        name[1:], "m.room.power_levels", by=ALICE, content=content, state_key="", auth=cited, at=0
    )
