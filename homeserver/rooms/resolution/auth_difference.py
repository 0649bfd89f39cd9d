"""What the auth chains of some states do not have in common, found without walking whole chains.

States of one room differ in few entries, and so their chains in few events: an event that is
unconflicted, or authorises what is, is in the full chain of every state. Two ways lead to the
difference. Both give what the definition gives, for any graph.

*Looking up*: from the conflicted entries down, for each event met, its descendants are asked for.
If there are few, they say everything: in which states' chains the event is. Mostly one of the first
of them is unconflicted, and the search ends there.

*Walking down*: where that would be long, all events are walked over from the newest to the oldest,
with the states whose chains have them, from all entries of the states, and no further than to where
nothing is left that not all states have.

Events are numbers here, and every event has a larger one than those that it cites.

Spec: https://spec.matrix.org/v1.19/rooms/v12/#definitions
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from heapq import heapify, heappop, heappush, nsmallest
from typing import ParamSpec, Protocol, TypeVar

from homeserver.protocol.state_resolution.auth_graph import events_between

MAX_LOOKUPS = 60  # events whose descendants are asked for before all is walked
DESCENDANTS = 150  # that are looked at for one event
STEP = 1_000  # events whose auth events are asked for at a time
PREFETCH_EVENTS = (
    2_000  # events that are asked for at a time before it is known that they are needed
)

P = ParamSpec("P")
T = TypeVar("T")
Graph = Mapping[int, Collection[int]]  # event -> its auth events


class AuthIndex(Protocol):
    """The auth graph of a room, as far as it is asked for, and the states' unconflicted entries."""

    async def cited(self, events: Collection[int], more: int = 0, lowest: int = 0) -> Graph:
        """The auth events of these events; and of up to `more` others that these lead to.

        Of the others none is below `lowest`.
        """

    async def citing(self, events: Collection[int], limit: int) -> Mapping[int, set[int]]:
        """The events whose auth chains have each of these; all, or some as many as `limit`."""

    async def unconflicted_among(self, events: Collection[int]) -> set[int]:
        """Those of the events that are unconflicted entries."""

    async def unconflicted(self) -> Iterable[int]:
        """All unconflicted entries."""

    async def power_levels_cited(
        self, events: Collection[int], more: int
    ) -> Mapping[int, int | None]:
        """The power levels event that each of these cites, and up to `more` that these lead to."""

    async def run_in_thread(self, rule: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """What a pure function gives, which may take long, without holding up others."""


async def auth_difference(
    entries: Mapping[int, int], everywhere: int, index: AuthIndex
) -> set[int]:
    """The events that are in the full auth chain of some state, but not of every one.

    Full chains have the events of the states themselves. Which of the conflicted entries are in
    every chain is not told: those entries are in the full conflicted set in any case.

    `entries` are the conflicted entries of the states, each with the set of the states that have
    it: one bit a state. `everywhere` is the set of all states.
    """
    graph = await index.cited(entries)
    chains: dict[int, int] = {}
    for entry, states in entries.items():
        for auth_event in graph[entry]:
            chains[auth_event] = chains.get(auth_event, 0) | states
    found = await _looked_up(chains, everywhere, index)
    return await _walked(chains, everywhere, index) if found is None else found


async def _looked_up(
    chains: Mapping[int, int], everywhere: int, index: AuthIndex
) -> set[int] | None:
    """The difference, or None where it is too far to see; `chains` as it is next to the entries."""
    difference: set[int] = set()
    met = set(chains)
    waiting = [event for event, states in chains.items() if states != everywhere]
    left = MAX_LOOKUPS
    while waiting:
        left -= len(waiting)
        if left < 0:
            return None
        citing = await index.citing(waiting, DESCENDANTS)
        unconflicted = await index.unconflicted_among(set().union(waiting, *citing.values()))
        apart: list[int] = []
        for event in waiting:
            descendants = citing[event]
            states = chains.get(event, 0)
            for each in descendants:
                states |= chains.get(each, 0)
            is_common = event in unconflicted or not unconflicted.isdisjoint(descendants)
            if is_common or states == everywhere:
                continue
            if len(descendants) >= DESCENDANTS:
                return None
            apart.append(event)
        difference.update(apart)
        # What a common event cites is common as well: only the others lead to more.
        graph = await index.cited(apart)
        waiting = list({cited for event in apart for cited in graph[event]} - met)
        met.update(waiting)
        waiting = [event for event in waiting if chains.get(event) != everywhere]
    return difference


async def _walked(chains: Mapping[int, int], everywhere: int, index: AuthIndex) -> set[int]:
    walk = _Walk(chains, everywhere, index)
    await walk.start()
    return await walk.difference()


class _Walk:
    """A walk over the chains of all states, from the newest event to the oldest.

    When an event has its turn all that cite it have had theirs, so that it is known which states'
    chains have it.
    """

    def __init__(self, chains: Mapping[int, int], everywhere: int, index: AuthIndex) -> None:
        self._chains = dict(chains)
        self._everywhere = everywhere
        self._index = index
        self._apart = 0  # still to come
        self._graph: dict[int, Collection[int]] = {}
        self._coming: list[int] = []  # a heap of negative numbers
        self._turns = 0

    async def start(self) -> None:
        """Begin at the unconflicted entries as well."""
        self._chains.update(dict.fromkeys(await self._index.unconflicted(), self._everywhere))
        self._apart = sum(states != self._everywhere for states in self._chains.values())
        self._coming = [-event for event in self._chains]
        heapify(self._coming)

    async def difference(self) -> set[int]:
        difference: set[int] = set()
        while self._apart:
            event = -heappop(self._coming)
            self._turns += 1
            states = self._chains.pop(event, 0)
            if states and states != self._everywhere:
                self._apart -= 1
                difference.add(event)
            for auth_event in await self._cited(event):
                self._reach(auth_event, states)
        return difference

    def _reach(self, event: int, states: int) -> None:
        before = self._chains.get(event)
        after = self._chains[event] = (before or 0) | states
        self._apart += (after != self._everywhere) - (
            before is not None and before != self._everywhere
        )
        if before is None:
            heappush(self._coming, -event)

    async def _cited(self, event: int) -> Collection[int]:
        found = self._graph.pop(event, None)
        if found is None:
            # Those that come next are asked for together, and as many as so far behind them: a
            # chain is walked in few steps, and no more than twice as far as needed.
            near = [event, *(-other for other in nsmallest(STEP - 1, self._coming))]
            wanted = [other for other in near if other not in self._graph]
            self._graph |= await self._index.cited(wanted, min(self._turns, PREFETCH_EVENTS))
            found = self._graph.pop(event)
        return found


async def events_connecting(entries: Collection[int], index: AuthIndex) -> set[int]:
    """The events on all paths from one of the entries to another, and the entries.

    For the conflicted state set this is the conflicted state subgraph.
    """
    within: set[int] | None = None
    if len(entries) <= MAX_LOOKUPS:
        citing = await index.citing(entries, DESCENDANTS)
        if all(len(descendants) < DESCENDANTS for descendants in citing.values()):
            within = set(entries).union(*citing.values())
        entries_cited = [entry for entry in entries if citing[entry]]
    else:
        entries_cited = list(entries)
    # What is older than all ends that can be reached leads to none of them.
    lowest = min(entries_cited, default=max(entries, default=0))
    graph: dict[int, list[int]] = {}
    waiting = [entry for entry in entries if entry > lowest]
    met = set(entries)
    ahead: dict[int, Collection[int]] = {}

    def go_on() -> list[int]:
        """The events that come next."""
        later: list[int] = []
        for event in waiting:
            graph[event] = [
                each
                for each in ahead.pop(event)
                if each >= lowest and (within is None or each in within)
            ]
            later += [each for each in graph[event] if each not in met]
            met.update(graph[event])
        return later

    while waiting:
        missing = [event for event in waiting if event not in ahead]
        more = 0 if within is not None else min(len(graph), PREFETCH_EVENTS)
        ahead |= await index.cited(missing, more, lowest)
        waiting = await index.run_in_thread(go_on)
    return await index.run_in_thread(events_between, entries, lambda event: graph.get(event, ()))


async def power_level_chains(starts: Iterable[int], index: AuthIndex) -> dict[int, int | None]:
    """What power levels events cite each other, from some on back to where all chains have met.

    The last one, where they have met, is given as if it cited none.
    """
    met = set(starts)
    coming = [-event for event in met]
    heapify(coming)
    chains: dict[int, int | None] = {}
    known: dict[int, int | None] = {}
    while len(coming) > 1:
        event = -heappop(coming)
        if event not in known:
            near = [event, *(-other for other in nsmallest(STEP - 1, coming))]
            wanted = [each for each in near if each not in known]
            known |= await index.power_levels_cited(wanted, min(len(chains), PREFETCH_EVENTS))
        cited = chains[event] = known.pop(event)
        if cited is not None and cited not in met:
            met.add(cited)
            heappush(coming, -cited)
    chains.update((-event, None) for event in coming)
    return chains
