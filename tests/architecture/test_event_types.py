"""Every type of event that the code knows has one name, which says that it is one."""

from homeserver.protocol import event_types
from tests.architecture.source import Module, modules

HOME = "homeserver/protocol/event_types.py"
TYPES = {
    value for name, value in vars(event_types).items() if name.isupper() and isinstance(value, str)
}
ALLOWED = {
    # A `Literal` takes no constant.
    "federation/api/third_party_invites.py": {event_types.MEMBER},
}


def literals(module: Module) -> set[str]:
    """The types of events that a module writes out."""
    return TYPES.intersection(module.texts)


def test_types_of_events_are_called_by_their_names() -> None:
    """A linter sees a misspelt name before the program runs, but no misspelt string."""
    found = {
        module.name: left
        for module in modules("homeserver", "federation")
        if module.name != HOME and (left := literals(module) - ALLOWED.get(module.name, set()))
    }

    assert found == {}


def test_no_exception_outlives_its_reason() -> None:
    """An exception that is not needed is removed."""
    by_name = {module.name: module for module in modules("homeserver", "federation")}

    assert {name: literals(by_name[name]) for name in ALLOWED} == ALLOWED


def test_every_type_is_there_once() -> None:
    """With two names for one thing, a search finds half of it."""
    names = [name for name in vars(event_types) if name.isupper() and not name.endswith("_KEY")]

    assert len(names) == len(TYPES)
    assert len(TYPES) > 20


def test_keys_of_the_state_are_those_of_their_types() -> None:
    """`NAME_KEY` is the key of `NAME`."""
    for name, value in vars(event_types).items():
        if name.endswith("_KEY"):
            assert value == (getattr(event_types, name.removesuffix("_KEY")), "")


def test_check_sees_a_literal() -> None:
    """A check that looked for the wrong thing would find nothing."""
    text = '"""Of m.room.name."""\nif x == "m.room.member" or y == f"{z} m.room.topic": pass\n'

    assert literals(Module("example.py", text)) == {"m.room.member"}
