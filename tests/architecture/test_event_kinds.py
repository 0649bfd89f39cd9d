"""Checks that code which compares an event's type also considers its state key."""

import ast
from collections.abc import Iterator

from tests.architecture.source import PACKAGES, Module, modules

# Rules that the specification bases on the type alone, and values that are no events of a room.
BY_TYPE_ALONE = (
    "homeserver/protocol/authorization/",
    "homeserver/protocol/event_format.py",
    "homeserver/protocol/event_graph.py",
    "homeserver/protocol/event_kinds.py",
    "homeserver/protocol/events.py",
    "homeserver/protocol/state_resolution/auth_checks.py",
    # An event is a create event by its type alone.
    "homeserver/rooms/inbound/event_checks.py",
    "federation/remote/remote_spaces.py",  # stripped state, which always has a key
)


def comparisons_of_types(tree: ast.AST) -> Iterator[int]:
    """The lines that compare the type of an event with a constant."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or not isinstance(node.left, ast.Attribute):
            continue
        holder = node.left.value
        is_event = (isinstance(holder, ast.Name) and holder.id == "event") or (
            isinstance(holder, ast.Attribute) and holder.attr == "event"
        )
        with_other_event = any(isinstance(right, ast.Attribute) for right in node.comparators)
        if node.left.attr == "type" and is_event and not with_other_event:
            yield node.lineno


def test_no_rule_goes_by_the_type_of_an_event_alone() -> None:
    """A user can send any type with any state key; `protocol/event_kinds.py` decides what it is."""
    found = [
        f"{module.name}:{line}"
        for module in modules(*PACKAGES)
        if not module.name.startswith(BY_TYPE_ALONE)
        for line in comparisons_of_types(module.tree)
    ]

    assert found == []


def test_check_sees_a_comparison() -> None:
    """The check above finds the comparisons that it forbids."""
    text = 'if stored.event.type == "m.room.name" or event.type in TYPES: pass'

    assert len([*comparisons_of_types(Module("example.py", text).tree)]) == 2
