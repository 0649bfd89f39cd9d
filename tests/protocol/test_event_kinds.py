"""The kinds of events, by type and state key."""

import pytest

from homeserver.protocol.event_kinds import (
    is_member_event,
    is_plain_redaction,
    is_redaction,
    is_state,
)
from tests.protocol.authorization.auth_builders import ALICE, BOB, event, member


@pytest.mark.parametrize(
    ("state_key", "expected"), [("", True), ("k", False), (ALICE, False), (None, False)]
)
def test_room_has_one_state_of_a_kind(state_key: str | None, expected: bool) -> None:
    """Levels with a key are not power levels, and a tombstone without one closes no room."""
    for event_type in ("m.room.power_levels", "m.room.tombstone", "m.room.create"):
        sent = event(event_type, by=ALICE, state_key=state_key)

        assert is_state(sent, event_type) == expected
        assert not is_state(sent, "m.room.name")


def test_membership_is_that_of_the_state_key() -> None:
    """Whatever its sender, and of no user without a key."""
    invite = member(BOB, "invite", by=ALICE)

    assert is_member_event(invite)
    assert is_member_event(invite, BOB)
    assert not is_member_event(invite, ALICE)
    assert not is_member_event(event("m.room.member", by=BOB, content={"membership": "join"}))
    assert not is_member_event(event("m.room.name", by=BOB, state_key=BOB))


def test_redaction_is_one_with_a_state_key_too() -> None:
    """Other servers use the type alone; `is_plain_redaction` excludes the rest."""
    plain = event("m.room.redaction", by=ALICE, content={"redacts": "$target"})
    state = event("m.room.redaction", by=ALICE, content={"redacts": "$target"}, state_key="")

    assert is_redaction(plain)
    assert is_redaction(state)
    assert is_plain_redaction(plain)
    assert not is_plain_redaction(state)
