"""Caches, shared loads and pauses between attempts are those of `homeserver/concurrency/`."""

import ast
from collections.abc import Callable, Iterator

from tests.architecture.source import PACKAGES, Module, modules

CONCURRENCY = "homeserver/concurrency/"

# Bounded tables that are no caches: their entries cannot be read or computed again.
BOUNDED_TABLES = {
    "homeserver/accounts/user_data/account_data.py": "positions of changes, known above a floor",
    "homeserver/presence/presence_events.py": "positions of changes, known above a floor",
    "homeserver/rooms/ephemeral/receipts.py": "positions of changes, known above a floor",
    "homeserver/rooms/ephemeral/typing.py": "positions of changes since the start",
    "homeserver/presence/remote_presence.py": "who is present, as other servers said",
    "homeserver/streams/recent_changes.py": "positions of changes, known above a floor",
    "federation/sending/destination_queue.py": "a queue of what is to be sent",
}

# Running work that no caller joins for its outcome.
BACKGROUND_WORK = {
    "federation/remote/partial_state_resync.py": "a task for each room, and its pauses",
    "federation/remote/staggered_requests.py": "the requests of one caller, side by side",
    "homeserver/rooms/sending/due_events.py": "the sending of each user's events",
}


def evictions(tree: ast.AST) -> Iterator[int]:
    """The lines in which the oldest entry of a mapping is removed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node).endswith(".popitem(last=False)"):
            yield node.lineno


def tables_of_deferreds(tree: ast.AST) -> Iterator[int]:
    """The lines in which an attribute is declared that maps keys to work under way."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation).startswith("dict["):
            value = node.annotation.slice if isinstance(node.annotation, ast.Subscript) else None
            if isinstance(value, ast.Tuple) and ast.unparse(value.elts[1]).startswith(
                ("Deferred[", "DeferredLock")
            ):
                yield node.lineno


def doublings(tree: ast.AST) -> Iterator[int]:
    """The lines with a power of two, or with the double of something that is bounded by `min`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            if _is_two(node.left) and not isinstance(node.right, ast.Constant):
                yield node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "min":
            yield from (node.lineno for given in node.args if _is_double(given))


def _is_double(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Mult)
        and (_is_two(node.left) or _is_two(node.right))
    )


def _is_two(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == 2


def found_outside(find: Callable[[ast.AST], Iterator[int]]) -> dict[str, list[int]]:
    """The lines that `find` gives, by file, of all code but that of the folder."""
    found = {
        module.name: [*find(module.tree)]
        for module in modules(*PACKAGES)
        if not module.name.startswith(CONCURRENCY)
    }
    return {name: lines for name, lines in found.items() if lines}


def test_there_is_one_cache() -> None:
    """`LruCache` is bounded, measured and shown to operators; a copy of it is not."""
    assert found_outside(evictions).keys() == BOUNDED_TABLES.keys()


def test_there_is_one_way_to_share_a_load() -> None:
    """`SingleFlight` and `KeyedLocks` define what waiting callers get when a load fails."""
    assert found_outside(tables_of_deferreds).keys() == BACKGROUND_WORK.keys()


def test_there_is_one_way_to_wait_longer_each_time() -> None:
    """A `RetrySchedule` is one constant, and has a bound."""
    assert found_outside(doublings) == {}


def test_checks_see_what_they_look_for() -> None:
    """Checks that looked for the wrong thing would find nothing."""
    tree = Module(
        "example.py",
        "self._kept.popitem(last=False)\n"
        "self._loads: dict[int, Deferred[None]] = {}\n"
        "self._locks: dict[tuple[str, str], DeferredLock] = {}\n"
        "pause = FIRST * 2.0 ** failures\n"
        "pause = min(pause * 2, MOST)\n",
    ).tree

    assert [*evictions(tree)] == [1]
    assert [*tables_of_deferreds(tree)] == [2, 3]
    assert sorted(doublings(tree)) == [4, 5]
