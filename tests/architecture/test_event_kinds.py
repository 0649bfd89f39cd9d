"""Whoever asks what type an event has also says what its state key means."""

import ast
from collections.abc import Iterator

from tests.architecture.source import PACKAGES, Module, modules

# Rules whose text goes by the type alone, and what is no event in a room.
BY_TYPE_ALONE = (
    "homeserver/protocol/authorization/",
    "homeserver/protocol/event_format.py",
    "homeserver/protocol/event_graph.py",
    "homeserver/protocol/event_kinds.py",
    "homeserver/protocol/events.py",
    "homeserver/protocol/state_resolution/auth_checks.py",
    # A create event is one by its type, or it would be no create event.
    "homeserver/rooms/inbound/event_checks.py",
    "federation/remote/remote_spaces.py",  # stripped state, which always has a key
)


def comparisons_of_types(tree: ast.AST) -> Iterator[int]:
    """The lines in which the type of an event is compared with something that is named."""
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
    """Any type can be sent with any state key: `protocol/event_kinds.py` says what it is then."""
    found = [
        f"{module.name}:{line}"
        for module in modules(*PACKAGES)
        if not module.name.startswith(BY_TYPE_ALONE)
        for line in comparisons_of_types(module.tree)
    ]

    assert found == []


def test_check_sees_a_comparison() -> None:
    """It would find nothing if it looked for the wrong thing."""
    text = 'if stored.event.type == "m.room.name" or event.type in TYPES: pass'

    assert len([*comparisons_of_types(Module("example.py", text).tree)]) == 2
