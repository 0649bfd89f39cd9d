"""The states of all rooms: state trees over a cache of nodes and the database.

States are named by their root hash (`EMPTY` for the state without entries). Reading fetches the
nodes that the cache lacks, a level of the tree at a time: the whole state of a room of 100,000
members takes four round trips, and one entry of it at most four. A change returns the rows that
make the new state durable; the caller appends them to the log together with their event.

New nodes are readable immediately, and stay so: until its row is written, a node is kept in memory
by the batch that holds the row, and is found there even after it has left the cache.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.concurrency.thread_pools import ThreadPool, computation_pool
from homeserver.rooms.state.node_codec import Entries, Key
from homeserver.rooms.state.tree import (
    Changes,
    Difference,
    Nodes,
    Walk,
    all_entries,
    all_entries_of_many,
    difference,
    find_entries,
    run,
    set_entries,
    size_bounds,
)
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.state_nodes import INSERT_STATE_NODE, state_nodes

RUN_IN_THREAD_ABOVE = 200  # nodes of one step of a walk: about 5 ms

MAX_CHANGES = 500

T = TypeVar("T")


class StateNodesNotInMemory(NotInMemory):
    """Required nodes are not in memory."""

    def __init__(self, states: "StateStore", hashes: Collection[bytes]) -> None:
        super().__init__(
            partial(states.fetch, hashes), f"{len(hashes)} state nodes are not in memory"
        )
        self.hashes = hashes


class StateStore:
    """Reads, compares and changes room states.

    `capacity` is the number of nodes kept in memory; one takes about 400 bytes there. `threads`
    runs long computations, here and in the resolution of states. Event, type and state key nids are
    the integers of the database.
    """

    def __init__(self, db: Database, capacity: int, threads: ThreadPool | None = None) -> None:
        self.threads = threads or computation_pool()
        self._db = db
        self._recent: LruCache[bytes, bytes] = LruCache("state_nodes", capacity)
        # The row of a new node holds a `memoryview` of it, which unlike bytes can be referred to
        # weakly: while any batch or caller has the row the node is found here, and no longer.
        self._unwritten: WeakValueDictionary[bytes, memoryview] = WeakValueDictionary()

    async def get(self, root: bytes, type_nid: int, key_nid: int) -> int | None:
        """The event of one entry, or None."""
        key = (type_nid, key_nid)
        return (await self._run(find_entries(root, [key]))).get(key)

    async def get_many(self, root: bytes, keys: Iterable[Key]) -> Entries:
        """The events of some entries, as {(type nid, key nid): event nid}, without absent ones."""
        return await self._run(find_entries(root, keys))

    async def load(self, root: bytes) -> Entries:
        """The whole state, as {(type nid, key nid): event nid}."""
        return await self._run(all_entries(root))

    async def load_many(self, roots: Collection[bytes]) -> dict[bytes, Entries]:
        """The whole states with these roots."""
        return await self._run(all_entries_of_many(roots))

    async def size_bounds(self, roots: Collection[bytes]) -> dict[bytes, int]:
        """How many entries the states with these roots have at most; reads the roots alone."""
        return await self._run(size_bounds(roots))

    async def diff(self, old: bytes, new: bytes) -> dict[Key, tuple[int | None, int | None]]:
        """The differences between two states, as {key: (old event, new event)}."""
        changed = await self._run(difference([old, new]))
        return {key: (before, after) for key, (before, after) in changed.items()}

    async def diff_many(self, roots: Sequence[bytes]) -> Difference:
        """The keys for which the states do not all agree, with the event in each, in order.

        The keys of the conflicted state set, as https://spec.matrix.org/v1.19/rooms/v2/#definitions
        defines it; all other entries are the same in every one of the states.
        """
        return await self._run(difference(roots))

    async def change(self, root: bytes, changes: Changes) -> tuple[bytes, list[Row]]:
        """The root after some changes (None removes an entry), and the rows that make it durable.

        Does not wait if the nodes on the paths to the changed entries are in memory, as they are
        after a recent change or `get` of the same entries.
        """
        return self._written(await self._run(set_entries(root, changes)))

    async def change_many(self, root: bytes, changes: Changes) -> tuple[bytes, list[Row]]:
        """As `change`, in a thread if there are thousands of changes."""
        if len(changes) <= MAX_CHANGES:
            return await self.change(root, changes)
        walk = set_entries(root, changes)
        step = await self.threads.run(_step, walk, None)
        while not step.is_last:
            step = await self.threads.run(_step, walk, await self._loaded(step.wanted))
        return self._written(step.results[0])

    def apply(self, root: bytes, changes: Changes) -> tuple[bytes, list[Row]]:
        """As `change`, for a caller that cannot wait.

        Raises:
            StateNodesNotInMemory: a node on the path is not in memory; `change` would load it.
        """
        return self._written(run(set_entries(root, changes), self._in_memory))

    async def get_ready(self, hashes: Collection[bytes]) -> None:
        """Have nodes in memory, of those that are stored."""
        _, missing = self._find(hashes)
        if missing:
            for name, node in (await self._db.run(state_nodes, missing)).items():
                self._recent.put(name, node)

    async def fetch(self, hashes: Collection[bytes]) -> None:
        """Load nodes into the cache, for a caller that could not wait for them."""
        await self._loaded(hashes)

    def _written(self, change: tuple[bytes, dict[bytes, bytes]]) -> tuple[bytes, list[Row]]:
        root, nodes = change
        # All nodes, even those in the cache: their change may never have been appended to the log.
        held = self._hold_unwritten
        return root, [INSERT_STATE_NODE.row(name, held(name, node)) for name, node in nodes.items()]

    def _hold_unwritten(self, name: bytes, node: bytes) -> memoryview:
        """Keep a new node at least as long as the returned value is held."""
        self._recent.put(name, node)
        view = self._unwritten.get(name)
        if view is None:
            view = self._unwritten[name] = memoryview(node)
        return view

    def _find(self, wanted: Collection[bytes]) -> tuple[dict[bytes, bytes], list[bytes]]:
        """The nodes that are in memory, and the hashes of the missing ones."""
        found: dict[bytes, bytes] = {}
        missing: list[bytes] = []
        recent = self._recent.get
        for name in wanted:
            if (node := recent(name)) is not None:
                found[name] = node
            elif (view := self._unwritten.get(name)) is not None:
                found[name] = bytes(view)
            else:
                missing.append(name)
        return found, missing

    def _in_memory(self, wanted: Collection[bytes]) -> Nodes:
        nodes, missing = self._find(wanted)
        if missing:
            raise StateNodesNotInMemory(self, missing)
        return nodes

    async def _run(self, walk: Walk[T]) -> T:
        step = _step(walk, None)
        while not step.is_last:
            nodes = await self._loaded(step.wanted)
            if len(nodes) > RUN_IN_THREAD_ABOVE:
                step = await self.threads.run(_step, walk, nodes)
            else:
                step = _step(walk, nodes)
        return step.results[0]

    async def _loaded(self, wanted: Collection[bytes]) -> Nodes:
        nodes, missing = self._find(wanted)
        if missing:
            stored = await self._db.run(state_nodes, missing)
            if len(stored) < len(missing):
                lost = [name for name in missing if name not in stored]
                raise StateNodesNotInMemory(self, lost)
            nodes.update(stored)
            for name, node in stored.items():
                self._recent.put(name, node)
        return nodes


class _Step(msgspec.Struct, Generic[T], frozen=True):
    """The progress of a walk: the nodes that it needs next, or its result."""

    wanted: Collection[bytes] = ()
    results: Sequence[T] = ()

    @property
    def is_last(self) -> bool:
        return bool(self.results)


def _step(walk: Walk[T], nodes: Nodes | None) -> _Step[T]:
    try:
        # A generator is started by sending it `None`.
        return _Step(walk.send(nodes))  # type: ignore[arg-type]
    except StopIteration as stop:
        return _Step(results=[stop.value])
