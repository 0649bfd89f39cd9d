"""History visibility: the rules and the examples of the specification."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.events import Event
from homeserver.protocol.history_visibility import (
    VISIBILITIES,
    may_see,
    may_see_event,
    visibility_of,
)
from tests.protocol.authorization.auth_builders import ALICE, BOB, event, member, message

MEMBERSHIPS = (None, "join", "invite", "knock", "leave", "ban")


def visibility_change(to: str) -> Event:
    return event(
        "m.room.history_visibility",
        by=ALICE,
        content={"history_visibility": to},
        state_key="",
    )


@pytest.mark.parametrize("membership", MEMBERSHIPS)
def test_everyone_sees_what_is_world_readable(membership: str | None) -> None:
    """Guests and non-members too, as the room has chosen."""
    assert may_see("world_readable", membership, joined_later=False)


@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_members_see_what_happened_while_they_were_there(visibility: str) -> None:
    """With any setting."""
    assert may_see(visibility, "join", joined_later=False)


@pytest.mark.parametrize("membership", [None, "leave", "invite", "ban"])
def test_shared_history_opens_to_those_who_join_later(membership: str | None) -> None:
    """And to no other user."""
    assert may_see("shared", membership, joined_later=True)
    assert not may_see("shared", membership, joined_later=False)


def test_invited_history_opens_with_the_invite() -> None:
    """Earlier messages stay hidden, even after the join."""
    assert may_see("invited", "invite", joined_later=False)
    assert not may_see("invited", None, joined_later=True)


def test_an_invite_opens_nothing_else() -> None:
    """With shared or joined history, the user must join first."""
    assert not may_see("shared", "invite", joined_later=False)
    assert not may_see("joined", "invite", joined_later=True)


@pytest.mark.parametrize("content", [None, {}, {"history_visibility": "all"}])
def test_an_unknown_visibility_is_shared(content: dict[str, str] | None) -> None:
    """The default of the specification."""
    assert visibility_of(content) == "shared"
    assert visibility_of({"history_visibility": ["joined"]}) == "shared"


@pytest.mark.parametrize(
    ("before", "after"), [("world_readable", "joined"), ("joined", "world_readable")]
)
def test_a_change_of_visibility_is_seen_if_either_side_allows(before: str, after: str) -> None:
    """The example of the specification: even a user who was never a member sees it."""
    change = visibility_change(after)

    assert may_see_event(change, BOB, visibility=before, membership=None, joined_later=False)


def test_an_event_that_is_not_of_the_room_itself_changes_no_visibility() -> None:
    """Only the event with an empty state key sets it."""
    decoy = event(
        "m.room.history_visibility",
        by=ALICE,
        content={"history_visibility": "world_readable"},
        state_key="x",
    )

    assert not may_see_event(decoy, BOB, visibility="joined", membership=None, joined_later=False)


@pytest.mark.parametrize(("before", "after"), [("invite", "join"), ("join", "leave")])
def test_users_see_their_own_joins_and_leaves(before: str, after: str) -> None:
    """The example of the specification: even if only members see anything."""
    change = member(BOB, after)

    assert may_see_event(change, BOB, visibility="joined", membership=before, joined_later=False)


def test_memberships_of_others_are_ordinary_history() -> None:
    """The exception is for one's own membership."""
    assert not may_see_event(
        member(ALICE, "join"), BOB, visibility="joined", membership="leave", joined_later=False
    )


@given(st.sampled_from(VISIBILITIES), st.sampled_from(MEMBERSHIPS), st.booleans())
def test_messages_are_seen_by_the_plain_rule(
    visibility: str, membership: str | None, joined_later: bool
) -> None:
    """The two exceptions do not apply to messages."""
    seen = may_see_event(
        message(by=ALICE),
        BOB,
        visibility=visibility,
        membership=membership,
        joined_later=joined_later,
    )

    assert seen == may_see(visibility, membership, joined_later=joined_later)


@given(st.sampled_from(VISIBILITIES), st.sampled_from(MEMBERSHIPS))
def test_joining_never_closes_anything(visibility: str, membership: str | None) -> None:
    """A user who joins later sees at least as much as without the join."""
    if may_see(visibility, membership, joined_later=False):
        assert may_see(visibility, membership, joined_later=True)
