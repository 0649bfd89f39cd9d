"""The state store: trees over a cache and a database, with nodes still to be written."""

from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.rooms.state.node_codec import EMPTY, Entries
from homeserver.rooms.state.store import StateNodesNotInMemory, StateStore
from homeserver.storage.database.batch import Batch, Row

MEMBER = 9
T = TypeVar("T")


class StoredNodes:
    """A fake database: rows are in it once they are written."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, bytes] = {}
        self.round_trips = 0

    def write(self, rows: list[Row]) -> None:
        self.nodes.update((name, bytes(node)) for _, (name, node) in rows)

    async def run(self, _: Callable[..., Any], names: Collection[bytes]) -> dict[bytes, bytes]:
        self.round_trips += 1
        return {name: self.nodes[name] for name in names if name in self.nodes}


def states(db: StoredNodes, capacity: int = 10_000) -> StateStore:
    return StateStore(db, capacity)  # type: ignore[arg-type]


def result_of(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    result: T = stopped.value.value
    return result


def members(count: int) -> Entries:
    return {(MEMBER, user): 1000 + user for user in range(1, count + 1)}


@given(st.sets(st.integers(1, 2**31), max_size=300), st.integers(1, 2**40))
def test_state_stored_then_loaded_is_the_same(users: set[int], first: int) -> None:
    """A restart changes nothing: another process reads from the rows what was written."""
    db = StoredNodes()
    entries = {(MEMBER, user): first + user for user in users}
    root, rows = states(db).apply(EMPTY, entries)
    db.write(rows)

    assert result_of(states(db).load(root)) == entries


def test_new_state_is_readable_before_it_is_written() -> None:
    """A message is authorised by a state change that is still on its way to the disk."""
    db = StoredNodes()
    subject = states(db)

    root, _ = subject.apply(EMPTY, members(500))

    assert result_of(subject.get(root, MEMBER, 7)) == 1007
    assert db.round_trips == 0


def test_node_that_waits_to_be_written_outlives_the_cache() -> None:
    """However busy the cache, nodes that the database lacks are not lost."""
    subject = states(StoredNodes(), capacity=1)

    batch = Batch()

    root, rows = subject.apply(EMPTY, members(500))
    while rows:
        batch.add(rows.pop())

    assert result_of(subject.load(root)) == members(500)


def test_node_is_forgotten_once_nothing_waits_for_it() -> None:
    """Changes that were written, or given up, do not fill the memory."""
    subject = states(StoredNodes(), capacity=1)
    root, rows = subject.apply(EMPTY, members(500))

    del rows

    with pytest.raises(StateNodesNotInMemory):
        result_of(subject.load(root))


def test_abandoned_change_is_written_completely_the_next_time() -> None:
    """A node in memory may belong to a change that was never logged: its row is made again."""
    db = StoredNodes()
    subject = states(db)
    subject.apply(EMPTY, members(500))

    root, rows = subject.apply(EMPTY, members(500))
    db.write(rows)

    assert result_of(states(db).load(root)) == members(500)


def test_change_loads_the_nodes_it_needs() -> None:
    """After a restart the first event of a room finds nothing in memory."""
    db = StoredNodes()
    root, rows = states(db).apply(EMPTY, members(500))
    db.write(rows)
    subject = states(db)

    changed, _ = result_of(subject.change(root, {(MEMBER, 7): 9999}))

    assert result_of(subject.get(changed, MEMBER, 7)) == 9999
    assert result_of(subject.diff(root, changed)) == {(MEMBER, 7): (1007, 9999)}


def test_apply_refuses_what_it_would_have_to_wait_for() -> None:
    """A caller that cannot wait learns which nodes are missing instead of blocking the server."""
    db = StoredNodes()
    root, rows = states(db).apply(EMPTY, members(5))
    db.write(rows)

    subject = states(db)

    with pytest.raises(StateNodesNotInMemory) as missing:
        subject.apply(root, {(MEMBER, 7): 9999})
    result_of(missing.value.load())
    changed, _ = subject.apply(root, {(MEMBER, 7): 9999})

    assert missing.value.hashes == [root]
    assert result_of(subject.get(changed, MEMBER, 7)) == 9999


def test_recent_nodes_are_read_from_memory() -> None:
    """A room that is looked at often costs the database nothing."""
    db = StoredNodes()
    root, rows = states(db).apply(EMPTY, members(500))
    db.write(rows)
    subject = states(db)
    result_of(subject.load(root))
    trips = db.round_trips

    result_of(subject.load(root))
    result_of(subject.get_many(root, [(MEMBER, 1), (MEMBER, 501)]))

    assert db.round_trips == trips


def test_diff_many_gives_the_event_in_each_state() -> None:
    """State resolution gets the conflicted entries of all branches in one walk."""
    subject = states(StoredNodes())
    base, kept = subject.apply(EMPTY, members(100))
    left, left_rows = subject.apply(base, {(MEMBER, 1): 5001})
    right, right_rows = subject.apply(base, {(MEMBER, 1): 5002, (MEMBER, 2): None})

    conflicted = result_of(subject.diff_many([base, left, right]))

    assert conflicted == {(MEMBER, 1): (1001, 5001, 5002), (MEMBER, 2): (1002, 1002, None)}
    assert kept
    assert left_rows
    assert right_rows
