"""The state of a room as the rules ask for it."""

import pytest

from homeserver.protocol.authorization.auth_state import AuthState
from tests.protocol.authorization.auth_builders import ALICE, BOB, event, member, room


def test_a_user_whom_the_room_has_never_seen_has_left() -> None:
    """The rules need not tell strangers from those who went away."""
    assert room().membership(BOB) == "leave"
    assert room(members={BOB: "ban"}).membership(BOB) == "ban"


@pytest.mark.parametrize("join_rule", [None, 5, ["public"]])
def test_a_room_whose_join_rule_cannot_be_read_is_closed(join_rule: object) -> None:
    """Doubt does not open a door, and other servers let in nobody."""
    rules = event("m.room.join_rules", by=ALICE, content={"join_rule": join_rule}, state_key="")

    assert room(join_rule=None, others=[rules]).join_rule == ""


def test_state_without_a_create_event_is_no_room() -> None:
    """Whoever asks is told at once, not by an answer that means something else."""
    state = AuthState({("m.room.member", ALICE): member(ALICE, "join")})

    assert state.find_create() is None
    with pytest.raises(LookupError):
        _ = state.create


def test_what_most_rules_want_is_computed_once() -> None:
    """The check of a message in an unchanged room costs a few look-ups."""
    state = room(users={BOB: 50})

    assert state.power_levels is state.power_levels
    assert state.power_levels.of(BOB) == 50
