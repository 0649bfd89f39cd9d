"""State trees: a tree is a dict that keeps every version of itself and shares equal parts."""

from collections.abc import Collection
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from homeserver.rooms.state.node_codec import (
    EMPTY,
    LEAF_ENTRIES,
    Entries,
    leaf_entries,
    node_hash,
    pack_branch,
    pack_leaf,
)
from homeserver.rooms.state.tree import (
    Changes,
    Nodes,
    Walk,
    all_entries,
    child_hashes,
    difference,
    find_entries,
    run,
    set_entries,
)

MEMBER, NAME = 9, 4
T = TypeVar("T")


class Store:
    """All nodes ever made, and the names of those that were loaded."""

    def __init__(self) -> None:
        self.nodes: dict[bytes, bytes] = {}
        self.loaded_nodes: set[bytes] = set()

    def change(self, root: bytes, changes: Changes) -> bytes:
        root, new = self.run(set_entries(root, changes))
        self.nodes.update(new)
        return root

    def entries(self, root: bytes) -> Entries:
        return self.run(all_entries(root))

    def run(self, walk: Walk[T]) -> T:
        def load(names: Collection[bytes]) -> Nodes:
            self.loaded_nodes.update(names)
            return {name: self.nodes[name] for name in names}

        self.loaded_nodes.clear()
        return run(walk, load)

    def reachable(self, root: bytes) -> set[bytes]:
        if not root:
            return set()
        below = (self.reachable(child) for child in child_hashes(self.nodes[root]))
        return {root}.union(*below)


def members(count: int, first_event: int = 1000) -> Entries:
    return {(MEMBER, user): first_event + user for user in range(1, count + 1)}


def apply_to_dict(state: Entries, changes: Changes) -> Entries:
    merged = {**state, **changes}
    return {key: event for key, event in merged.items() if event is not None}


@st.composite
def change_sets(draw: st.DrawFn) -> Changes:
    """Runs of neighbouring keys set or removed together, so that few choices make large trees."""
    changes: dict[tuple[int, int], int | None] = {}
    for _ in range(draw(st.integers(1, 3))):
        type_nid = draw(st.sampled_from([MEMBER, NAME, 2**31 - 1]))
        start, length = draw(st.integers(0, 150)), draw(st.sampled_from([1, 2, 31, 33, 100]))
        event = draw(st.one_of(st.none(), st.integers(1, 2**62)))
        for offset in range(length):
            changes[type_nid, start + offset] = None if event is None else event + offset
    return changes


@given(st.lists(change_sets(), max_size=6))
def test_tree_equals_a_dict_under_any_changes(history: list[Changes]) -> None:
    """With any changes, a room's state has the last event of each key."""
    store, root, expected = Store(), EMPTY, dict[tuple[int, int], int]()

    for changes in history:
        root = store.change(root, changes)
        expected = apply_to_dict(expected, changes)

        assert store.entries(root) == expected
        assert store.run(find_entries(root, changes)) == {
            key: expected[key] for key in changes if key in expected
        }


@given(st.lists(change_sets(), max_size=6))
def test_equal_states_have_equal_roots_whatever_their_history(history: list[Changes]) -> None:
    """Equal states are stored once and compare in one step, however each of them came about."""
    store, root, expected = Store(), EMPTY, dict[tuple[int, int], int]()
    for changes in history:
        root = store.change(root, changes)
        expected = apply_to_dict(expected, changes)

    made_at_once = Store().change(EMPTY, expected)

    assert made_at_once == root


@given(st.lists(change_sets(), min_size=1, max_size=4))
def test_earlier_states_stay_readable(history: list[Changes]) -> None:
    """The state at any past event can be read, so a change must not touch older nodes."""
    store, root, expected = Store(), EMPTY, dict[tuple[int, int], int]()
    states: list[tuple[bytes, Entries]] = []
    for changes in history:
        root = store.change(root, changes)
        expected = apply_to_dict(expected, changes)
        states.append((root, expected))

    assert [store.entries(root) for root, _ in states] == [entries for _, entries in states]


@given(change_sets(), st.lists(change_sets(), min_size=1, max_size=3))
def test_difference_equals_that_of_dicts(common: Changes, branches: list[Changes]) -> None:
    """Sync and state resolution see exactly the entries in which states differ."""
    store = Store()
    base = store.change(EMPTY, common)
    roots = [base, *(store.change(base, changes) for changes in branches)]

    found = store.run(difference(roots))

    states = [store.entries(root) for root in roots]
    everything = {key: tuple(state.get(key) for state in states) for key in set().union(*states)}
    assert found == {key: events for key, events in everything.items() if len(set(events)) > 1}


def test_difference_visits_only_nodes_that_differ() -> None:
    """Two states of a large room are compared at the cost of their difference, not of the room."""
    store = Store()
    before = store.change(EMPTY, members(20_000))
    after = store.change(before, {(MEMBER, 77): 900_000, (MEMBER, 20_001): 900_001})

    found = store.run(difference([before, after]))

    assert found == {(MEMBER, 77): (1077, 900_000), (MEMBER, 20_001): (None, 900_001)}
    assert store.loaded_nodes == store.reachable(before) ^ store.reachable(after)
    assert len(store.loaded_nodes) <= 14


def test_change_makes_only_the_nodes_on_its_path() -> None:
    """A change in a large room stores a handful of small nodes, not a copy of the room."""
    store = Store()
    before = store.change(EMPTY, members(20_000))
    known = set(store.nodes)

    _, new = store.run(set_entries(before, {(MEMBER, 77): 900_000}))

    assert len(new) <= 5
    assert sum(map(len, new.values())) < 1200
    assert not known & set(new)


def test_change_that_changes_nothing_makes_no_nodes() -> None:
    """Setting what is already set, or removing what is not there, costs no storage."""
    store = Store()
    root = store.change(EMPTY, members(1000))

    same_root, new = store.run(set_entries(root, {(MEMBER, 5): 1005, (NAME, 5): None}))

    assert (same_root, new) == (root, {})


def test_small_room_is_one_node() -> None:
    """Most rooms are small: their state is read with a single row."""
    store = Store()

    root = store.change(EMPTY, members(LEAF_ENTRIES))

    assert store.reachable(root) == {root}


def test_removing_entries_gives_back_the_small_tree() -> None:
    """A state that shrinks to a leaf's size is the leaf again, even by removals from everywhere."""
    store = Store()
    small = store.change(EMPTY, members(LEAF_ENTRIES))
    large = store.change(small, members(5000))

    shrunk = store.change(large, {(MEMBER, user): None for user in range(LEAF_ENTRIES + 1, 5001)})

    assert shrunk == small


def test_removals_of_absent_entries_do_not_confuse_the_shape() -> None:
    """A state resolution may remove keys that one of the states never had."""
    store = Store()
    root = store.change(EMPTY, members(LEAF_ENTRIES + 3))

    same = store.change(root, {(NAME, user): None for user in range(100)})

    assert same == root


def test_all_entries_removed_is_the_empty_tree() -> None:
    """The state before the first event has no node at all."""
    store = Store()
    root = store.change(EMPTY, members(100))

    nothing = store.change(root, dict.fromkeys(members(100)))

    assert nothing == EMPTY
    assert store.entries(EMPTY) == {}
    assert store.run(find_entries(EMPTY, [(MEMBER, 1)])) == {}


def test_each_level_is_loaded_in_one_query() -> None:
    """A whole state is loaded in as many round trips as the tree has levels."""
    store = Store()
    root = store.change(EMPTY, members(20_000))
    requests = []

    def counted(names: Collection[bytes]) -> Nodes:
        requests.append(len(names))
        return store.nodes

    entries = run(all_entries(root), counted)

    assert len(entries) == 20_000
    assert len(requests) <= 5


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
        st.integers(0, 2**63 - 1),
        min_size=1,
        max_size=LEAF_ENTRIES,
    )
)
def test_leaf_keeps_its_entries(entries: Entries) -> None:
    """Entries of a packed node are decoded unchanged, for all integers of the database."""
    assert leaf_entries(pack_leaf(entries)) == entries


def test_stored_form_does_not_change() -> None:
    """Trees stored by an older release are read, shared and compared by a newer one."""
    leaf = pack_leaf(
        {(9, 70_000): 5_000_000_007, (9, 70_012): 5_000_000_000, (4, 1): 5_000_000_300}
    )

    branch = pack_branch(40, [node_hash(leaf), *[EMPTY] * 14, node_hash(leaf)])

    assert leaf.hex() == "9acf000000012a05f20004050001ce0001116f0ccd012c0700"
    assert branch.hex() == "c10000002880019510d45abeceed64c9959c1d9510d45abeceed64c9959c1d"
    assert Store().change(EMPTY, members(1000)).hex() == "d0d45ac0413fd301bba450fa"
