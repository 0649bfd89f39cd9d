"""Objects are complete when they are constructed: the composition root assigns nothing to them.

What an object needs is an argument of its constructor. If a part is set later, every method
must expect it to be missing, and the order of construction is hidden.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.source import Module, modules

ADDING = {"add", "append", "extend", "insert", "setdefault", "update"}
# Assignments that remain, by the place and the target, each with its reason.
EXCEPTIONS = {
    # `threading.Timer` takes it no other way, and it must be set before the thread starts.
    "homeserver/app.py: last_resort.daemon",
}


def test_nothing_is_set_in_an_object_after_its_construction() -> None:
    """A part that is not there yet cannot be called."""
    found = {
        f"{module.name}: {target}"
        for module in modules("homeserver/wiring") + _app()
        for target in targets(module.tree)
    }

    assert found - EXCEPTIONS == set()
    assert EXCEPTIONS - found == set(), "an exception that is not needed any more is removed"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("rooms.history.backfill = Backfill()", ["rooms.history.backfill"]),
        ("log.on_batch: object = metrics.batch_committed", ["log.on_batch"]),
        ("hierarchy.remote = previews.remote = spaces", ["hierarchy.remote", "previews.remote"]),
        ("self.creation.invite_remote = invite", ["self.creation.invite_remote"]),
        ("a, rooms.remote = pair", ["rooms.remote"]),
        ("upgrades.carry_over += [migrate]", ["upgrades.carry_over"]),
        ("profiles.on_changed.append(renew)", ["profiles.on_changed"]),
        ("self.profiles.on_changed[name] = renew", ["self.profiles.on_changed"]),
        ("setattr(rooms, 'remote', remote)", ["rooms"]),
        ("self.rooms = rooms; stages.append(stage); self._apis.append(api)", []),
    ],
)
def test_late_assignments_are_found(source: str, found: list[str]) -> None:
    """In each form in which one was made, or could be."""
    assert [*targets(ast.parse(source))] == found


def targets(tree: ast.AST) -> Iterator[str]:
    """The attributes of other objects that are set, or lists in them that are added to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            yield from _foreign(node.value if isinstance(node, ast.Subscript) else node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ADDING:
                yield from _foreign(node.func.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "setattr":
            yield ast.unparse(node.args[0])


def _foreign(node: ast.expr) -> Iterator[str]:
    """An attribute, unless it is one of `self`."""
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) != "self":
        yield ast.unparse(node)


def _app() -> list[Module]:
    return [module for module in modules("homeserver") if module.name == "homeserver/app.py"]
