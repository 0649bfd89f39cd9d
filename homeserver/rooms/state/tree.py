"""State trees: a room's state as a persistent radix tree from (type, state key) to event.

A state is named by the hash of its root node, and never changes: a change makes new nodes only on
the path to the changed entry, and shares all others with the state before. The shape follows from
the content alone (a subtree with at most `LEAF_ENTRIES` entries is a leaf, any larger one a
branch), so equal states have equal roots, whatever their histories, and two states are compared by
walking only the nodes in which they differ.

Nothing here waits for a database. An operation is a `Walk`: a generator that yields the hashes of
the nodes it needs, a whole level of the tree at once, is sent a mapping that has them, and returns
its result. `run` drives one over nodes that are all in memory; `store.py` drives them over a cache
and the database.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from typing import TypeVar

from homeserver.rooms.state.node_codec import (
    EMPTY,
    FAN_OUT,
    LEAF_ENTRIES,
    NO_CHILDREN,
    Entries,
    Key,
    branch_child,
    branch_children,
    branch_size,
    is_branch,
    leaf_entries,
    node_hash,
    pack_branch,
    pack_leaf,
    slot_of,
    spread,
)

T = TypeVar("T")
Nodes = Mapping[bytes, bytes]  # hash -> node
Walk = Generator[Collection[bytes], Nodes, T]
Changes = Mapping[Key, int | None]  # -> the new event, or None to remove the entry
Difference = dict[Key, tuple[int | None, ...]]  # -> the event in each of the states compared
_Change = tuple[int, Key, int | None]  # with the key's place in front


def run(walk: Walk[T], nodes: Callable[[Collection[bytes]], Nodes]) -> T:
    """The result of a walk over nodes that are available without waiting.

    `nodes` returns a mapping with at least the requested nodes. An exception of it ends the walk.
    """
    try:
        wanted = next(walk)
        while True:
            wanted = walk.send(nodes(wanted))
    except StopIteration as stop:
        result: T = stop.value
        return result


def find_entries(root: bytes, keys: Iterable[Key]) -> Walk[Entries]:
    """The entries of some keys; missing ones are left out."""
    found: Entries = {}
    level = [(root, [(spread(key), key) for key in keys])] if root else []
    depth = 0
    while level:
        nodes = yield [name for name, _ in level]
        below: list[tuple[bytes, list[tuple[int, Key]]]] = []
        for name, wanted in level:
            node = nodes[name]
            if is_branch(node):
                for slot, part in _by_slot(wanted, depth).items():
                    if child := branch_child(node, slot):
                        below.append((child, part))
            else:
                entries = leaf_entries(node)
                found.update((key, entries[key]) for _, key in wanted if key in entries)
        level = below
        depth += 1
    return found


def all_entries(root: bytes) -> Walk[Entries]:
    """The whole state."""
    return (yield from all_entries_of_many([root]))[root]


def all_entries_of_many(roots: Collection[bytes]) -> Walk[dict[bytes, Entries]]:
    """The whole states, by root."""
    found: dict[bytes, Entries] = {root: {} for root in roots}
    level = [(root, entries) for root, entries in found.items() if root]
    while level:
        nodes = yield {name for name, _ in level}
        below: list[tuple[bytes, Entries]] = []
        for name, entries in level:
            node = nodes[name]
            if is_branch(node):
                below += [(child, entries) for child in branch_children(node) if child]
            else:
                entries.update(leaf_entries(node))
        level = below
    return found


def size_bounds(roots: Collection[bytes]) -> Walk[dict[bytes, int]]:
    """How many entries each state has at most, by root. Exact for large states."""
    nodes = yield [root for root in roots if root]
    return {root: _size_bound(nodes[root]) if root else 0 for root in roots}


def difference(roots: Sequence[bytes]) -> Walk[Difference]:
    """The keys for which the states do not all agree, with the event (or None) in each of them.

    Visits only nodes that are not in all the states: equal subtrees have equal hashes.
    """
    seen: list[Entries] = [{} for _ in roots]
    level = [tuple(roots)] if len(set(roots)) > 1 else []
    while level:
        nodes = yield {name for names in level for name in names if name}
        below: list[tuple[bytes, ...]] = []
        for names in level:
            # Entries of a leaf are compared at the end, so the other states may have a branch here.
            children = [
                _children_or_entries(nodes[name], entries) if name else NO_CHILDREN
                for name, entries in zip(names, seen, strict=True)
            ]
            below.extend(slot for slot in zip(*children, strict=True) if len(set(slot)) > 1)
        level = below
    events = {key: tuple(entries.get(key) for entries in seen) for key in set().union(*seen)}
    return {key: values for key, values in events.items() if len(set(values)) > 1}


def set_entries(root: bytes, changes: Changes) -> Walk[tuple[bytes, dict[bytes, bytes]]]:
    """The state after some changes: its root, and the nodes that the state before does not have."""
    placed = [(spread(key), key, event) for key, event in changes.items()]
    loaded = yield from _nodes_to_change(root, placed)
    edit = _Edit(loaded)
    new_root, _ = edit.changed(root, 0, placed)
    return new_root, edit.new


def child_hashes(node: bytes) -> list[bytes]:
    """The hashes of the nodes right below a node."""
    return list(filter(None, branch_children(node))) if is_branch(node) else []


def _size_bound(node: bytes) -> int:
    return branch_size(node) if is_branch(node) else LEAF_ENTRIES


def _children_or_entries(node: bytes, entries: Entries) -> Sequence[bytes]:
    if is_branch(node):
        return branch_children(node)
    entries.update(leaf_entries(node))
    return NO_CHILDREN


def _nodes_to_change(root: bytes, changes: list[_Change]) -> Walk[dict[bytes, bytes]]:
    """The nodes on the paths to the changes, and whole subtrees that may shrink to a leaf."""
    loaded: dict[bytes, bytes] = {}
    level = [(root, changes, False)] if root else []
    depth = 0
    while level:
        nodes = yield [name for name, _, _ in level]
        below: list[tuple[bytes, list[_Change], bool]] = []
        for name, wanted, whole in level:
            node = loaded[name] = nodes[name]
            if not is_branch(node):
                continue
            whole = whole or _may_become_leaf(node, wanted)
            parts = _by_slot(wanted, depth)
            for slot, child in enumerate(branch_children(node)):
                if child and (whole or slot in parts):
                    below.append((child, parts.get(slot, []), whole))
        level = below
        depth += 1
    return loaded


class _Edit:
    """One change of a tree: `loaded` has the nodes that it needs, `new` those that it makes."""

    def __init__(self, loaded: Nodes) -> None:
        self.new: dict[bytes, bytes] = {}
        self._loaded = loaded

    def changed(self, name: bytes, depth: int, changes: list[_Change]) -> tuple[bytes, int]:
        """The hash of a changed subtree, and by how many entries it has grown."""
        node = self._loaded[name] if name else None
        if node is None or not is_branch(node) or _may_become_leaf(node, changes):
            entries = self._entries(name)
            before = len(entries)
            for _, key, event in changes:
                if event is None:
                    entries.pop(key, None)
                else:
                    entries[key] = event
            return self._built(entries, depth), len(entries) - before
        children = branch_children(node)
        grown = 0
        for slot, part in _by_slot(changes, depth).items():
            children[slot], more = self.changed(children[slot], depth + 1, part)
            grown += more
        return self._named(pack_branch(branch_size(node) + grown, children)), grown

    def _entries(self, name: bytes) -> Entries:
        return run(all_entries(name), lambda _: self._loaded)

    def _built(self, entries: Entries, depth: int) -> bytes:
        """The hash of the subtree with these entries, built from nothing."""
        if len(entries) <= LEAF_ENTRIES:
            return self._named(pack_leaf(entries)) if entries else EMPTY
        return self._split([(spread(key), key, event) for key, event in entries.items()], depth)

    def _split(self, entries: list[tuple[int, Key, int]], depth: int) -> bytes:
        if len(entries) <= LEAF_ENTRIES:
            return self._named(pack_leaf({key: event for _, key, event in entries}))
        children = [EMPTY] * FAN_OUT
        for slot, part in _by_slot(entries, depth).items():
            children[slot] = self._split(part, depth + 1)
        return self._named(pack_branch(len(entries), children))

    def _named(self, node: bytes) -> bytes:
        name = node_hash(node)
        if name not in self._loaded:
            self.new[name] = node
        return name


def _may_become_leaf(branch: bytes, changes: list[_Change]) -> bool:
    removals = sum(event is None for _, _, event in changes)
    return branch_size(branch) - removals <= LEAF_ENTRIES


_Placed = TypeVar("_Placed", bound=tuple[int, *tuple[object, ...]])


def _by_slot(placed: Iterable[_Placed], depth: int) -> dict[int, list[_Placed]]:
    parts: dict[int, list[_Placed]] = {}
    for item in placed:
        parts.setdefault(slot_of(item[0], depth), []).append(item)
    return parts
