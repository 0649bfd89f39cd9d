"""The state of a room as the rules read it."""

import pytest

from homeserver.protocol.authorization.auth_state import AuthState
from tests.protocol.authorization.auth_builders import ALICE, BOB, event, member, room


def test_a_user_who_was_never_in_the_room_has_left() -> None:
    """The rules need not distinguish users who left from those who never joined."""
    assert room().membership(BOB) == "leave"
    assert room(members={BOB: "ban"}).membership(BOB) == "ban"


@pytest.mark.parametrize("join_rule", [None, 5, ["public"]])
def test_a_room_whose_join_rule_cannot_be_read_is_closed(join_rule: object) -> None:
    """Doubt does not open a room, and other servers admit no user."""
    rules = event("m.room.join_rules", by=ALICE, content={"join_rule": join_rule}, state_key="")

    assert room(join_rule=None, others=[rules]).join_rule == ""


def test_state_without_a_create_event_is_no_room() -> None:
    """The caller gets an error at once, not a wrong result."""
    state = AuthState({("m.room.member", ALICE): member(ALICE, "join")})

    assert state.found_create is None
    with pytest.raises(LookupError):
        _ = state.create


def test_values_for_most_rules_are_computed_once() -> None:
    """The check of a message in an unchanged room costs a few look-ups."""
    state = room(users={BOB: 50})

    assert state.power_levels is state.power_levels
    assert state.power_levels.of(BOB) == 50
