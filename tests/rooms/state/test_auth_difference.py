"""The auth difference: the index agrees with the definition, for any graph."""

from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.state_resolution.auth_graph import events_between
from homeserver.rooms.resolution import auth_difference as subject
from tests.rooms.state.stored_edges import StoredEdges

Graph = dict[int, list[int]]
P = ParamSpec("P")
T = TypeVar("T")


class States:
    """States over a graph of numbers, as the index knows them."""

    def __init__(self, graph: Graph, states: list[set[int]]) -> None:
        self.edges = StoredEdges(graph)
        self.common = set.intersection(*states)
        self.everywhere = (1 << len(states)) - 1
        self.entries = {
            event: sum(1 << place for place, state in enumerate(states) if event in state)
            for event in set().union(*states) - self.common
        }

    def difference(self) -> set[int]:
        return result_of(subject.auth_difference(self.entries, self.everywhere, self))

    async def cited(
        self, events: Collection[int], more: int = 0, lowest: int = 0
    ) -> Mapping[int, Collection[int]]:
        return dict(self.edges.auth_edges(events, len(events) + more, lowest))

    async def citing(self, events: Collection[int], limit: int) -> Mapping[int, set[int]]:
        found: dict[int, set[int]] = {event: set() for event in events}
        for event, citing in self.edges.citing_events(events, limit):
            found[event].add(citing)
        return found

    async def run_in_thread(self, rule: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        return rule(*args, **options)

    async def unconflicted_among(self, events: Collection[int]) -> set[int]:
        return self.common.intersection(events)

    async def unconflicted(self) -> Iterable[int]:
        return self.common

    async def power_levels_cited(
        self, events: Collection[int], more: int
    ) -> Mapping[int, int | None]:
        # In these graphs all events are power levels that cite one other at most.
        return {event: max(cited, default=None) for event, cited in self.edges.graph.items()}


def result_of(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    result: T = stopped.value.value
    return result


def chain_of(graph: Graph, events: Iterable[int]) -> set[int]:
    """The union of the auth chains, by its definition."""
    chain: set[int] = set()
    for event in events:
        chain |= {*graph[event]} | chain_of(graph, graph[event])
    return chain


@st.composite
def forked(draw: st.DrawFn) -> tuple[Graph, list[set[int]]]:
    """Events that cite any of those before them, and some states made of any of them."""
    size = draw(st.integers(1, 16))
    graph = {
        event: sorted(draw(st.sets(st.integers(1, event - 1), max_size=3))) if event > 1 else []
        for event in range(1, size + 1)
    }
    some = st.sets(st.sampled_from(sorted(graph)), max_size=5)
    common = draw(some)
    states = [common | own for own in draw(st.lists(some, min_size=2, max_size=5))]
    return graph, states


@given(forked(), st.sampled_from([0, 1, 3, 100]), st.sampled_from([1, 2, 4, 100]))
def test_difference_is_what_not_all_chains_have(
    example: tuple[Graph, list[set[int]]], look_ups: int, descendants: int
) -> None:
    """By both algorithms servers must come to the same state: none may miss an event."""
    graph, states = example
    chains = [state | chain_of(graph, state) for state in states]
    index = States(graph, states)

    with (
        patch.object(subject, "MAX_LOOKUPS", look_ups),
        patch.object(subject, "DESCENDANTS", descendants),
        patch.object(subject, "STEP", 3),
    ):
        found = index.difference()

    # Entries themselves are in conflict in any case, whether or not every chain has them.
    difference = set().union(*chains) - chains[0].intersection(*chains[1:])
    assert found | index.entries.keys() == difference | index.entries.keys()


@given(forked(), st.sampled_from([0, 100]), st.sampled_from([1, 3, 100]))
def test_connecting_events_are_those_between_entries(
    example: tuple[Graph, list[set[int]]], look_ups: int, descendants: int
) -> None:
    """The conflicted state subgraph of room version 12 is the same on every server."""
    graph, states = example
    index = States(graph, states)

    with (
        patch.object(subject, "MAX_LOOKUPS", look_ups),
        patch.object(subject, "DESCENDANTS", descendants),
        patch.object(subject, "STEP", 3),
    ):
        found = result_of(subject.events_connecting(index.entries.keys(), index))

    assert found == events_between(index.entries.keys(), lambda event: graph[event])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=16), st.data())
def test_chains_of_power_levels_reach_back_to_where_they_meet(
    parents: list[int], data: st.DataObject
) -> None:
    """The mainline differs only after the common event."""
    graph = {
        event: [event - back] if 0 < back < event else []
        for event, back in enumerate(parents, start=1)
    }
    starts = data.draw(st.sets(st.sampled_from(sorted(graph)), min_size=1))
    lines = [[start, *sorted(chain_of(graph, [start]), reverse=True)] for start in starts]

    found = result_of(subject.power_level_chains(starts, States(graph, [starts, set()])))

    for line in lines:
        known = [event for event in line if event in found]
        assert known == line[: len(known)]
        assert [found[event] for event in known] == [*known[1:], None]
        # Every event that leads to an excluded one does so through the same event.
        left_out = set(line) - set(known)
        assert all(known[-1] in other for other in lines if not left_out.isdisjoint(other))


def linear_room(members: int, changes: int) -> tuple[Graph, dict[int, int]]:
    """A room whose power levels changed often, and whose members have all joined since.

    Event 1 creates the room. The others are {number of the member: the event of the join}.
    """
    graph: Graph = {1: []} | {event: [1, event - 1][: event - 1] for event in range(2, changes + 2)}
    newest = changes + 1
    joins = {member: newest + 1 + member for member in range(members)}
    return graph | {join: [1, newest] for join in joins.values()}, joins


def test_a_fork_in_a_large_room_reads_little() -> None:
    """Two people change something at the same time: the thousands of others are not looked at."""
    graph, joins = linear_room(10_000, 100_000)
    newest = 100_001
    graph |= {150_001: [1, newest, joins[1]], 150_002: [1, newest, joins[2]]}
    graph |= {200_001: [1, newest, 150_001], 200_002: [1, newest, 150_002]}
    common = set(joins.values()) | {1, newest}
    room = States(graph, [common | {200_001}, common | {200_002}])

    difference = room.difference()

    # The joins are in both states, and so in both chains.
    assert difference == {150_001, 150_002}
    assert room.edges.rows_read < 1_000
    assert room.edges.statements < 10


def test_a_branch_of_long_ago_is_compared_in_few_steps() -> None:
    """A server comes back that has missed the last 100,000 changes: all of them are in dispute."""
    graph, _ = linear_room(0, 100_000)
    graph |= {200_001: [1, 100_001], 200_002: [1, 2]}
    room = States(graph, [{1, 200_001}, {1, 200_002}])

    difference = room.difference()
    connecting = result_of(subject.events_connecting(room.entries.keys(), room))

    assert difference == set(range(3, 100_002))
    assert connecting == {200_001, 200_002}
    assert room.edges.rows_read < 250_000
    assert room.edges.statements < 200


def test_ten_thousand_conflicts_are_compared_in_few_steps() -> None:
    """Two halves of a room that were cut off from each other for long find together again."""
    graph, joins = linear_room(10_000, 100)
    here = {join: 200_000 + join for join in joins.values()}
    graph |= {event: [1, 101, join] for join, event in here.items()}
    room = States(graph, [{1, 101, *joins.values()}, {1, 101, *here.values()}])

    difference = room.difference()
    connecting = result_of(subject.events_connecting(room.entries.keys(), room))

    assert difference == set(joins.values())
    assert connecting == room.entries.keys()
    assert room.edges.rows_read < 100_000
    assert room.edges.statements < 200
