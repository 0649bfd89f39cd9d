"""The selection of auth events: the state that an event depends on, and nothing else."""

from typing import Any

import pytest

from homeserver.protocol.authorization.auth_types import auth_types_for
from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.protocol.authorization.auth_builders import ALICE, ALL_VERSIONS, BOB, CAROL, versions

every_version = pytest.mark.parametrize("version", ALL_VERSIONS)
CREATE = ("m.room.create", "")
POWER_LEVELS = ("m.room.power_levels", "")
JOIN_RULES = ("m.room.join_rules", "")


def member(user: str) -> tuple[str, str]:
    return ("m.room.member", user)


def selected(
    version: str, event_type: str, state_key: str | None = None, **content: Any
) -> set[tuple[str, str]]:
    """The selected types for an event of ALICE, except the create event; none may occur twice."""
    pairs = auth_types_for(ROOM_VERSIONS[version], event_type, ALICE, state_key, content)
    assert len(pairs) == len(set(pairs))
    return set(pairs) - {CREATE}


@every_version
def test_a_create_event_depends_on_nothing(version: str) -> None:
    """It is the first."""
    assert auth_types_for(ROOM_VERSIONS[version], "m.room.create", ALICE, "", {}) == []


@every_version
def test_a_message_depends_on_power_and_membership(version: str) -> None:
    """Its permission depends on nothing else."""
    assert selected(version, "m.room.message") == {POWER_LEVELS, member(ALICE)}


@every_version
def test_the_create_event_is_selected_unless_the_room_id_implies_it(version: str) -> None:
    """From version 12 on it must not be."""
    pairs = auth_types_for(ROOM_VERSIONS[version], "m.room.message", ALICE, None, {})

    assert (CREATE in pairs) == ROOM_VERSIONS[version].create_in_auth_events


@every_version
@pytest.mark.parametrize("membership", ["join", "invite", "knock"])
def test_a_join_depends_on_the_join_rules(version: str, membership: str) -> None:
    """The join rules determine who may join."""
    assert selected(version, "m.room.member", BOB, membership=membership) == {
        POWER_LEVELS,
        JOIN_RULES,
        member(ALICE),
        member(BOB),
    }


@every_version
@pytest.mark.parametrize("membership", ["leave", "ban"])
def test_a_leave_does_not_depend_on_the_join_rules(version: str, membership: str) -> None:
    """Join rules keep no user in a room."""
    assert selected(version, "m.room.member", BOB, membership=membership) == {
        POWER_LEVELS,
        member(ALICE),
        member(BOB),
    }


@every_version
def test_a_third_party_invite_is_selected_by_its_token(version: str) -> None:
    """Its content has the keys that verify it."""
    proof = {"signed": {"token": "abc"}}
    token = ("m.room.third_party_invite", "abc")

    invite = selected(version, "m.room.member", BOB, membership="invite", third_party_invite=proof)
    join = selected(version, "m.room.member", BOB, membership="join", third_party_invite=proof)

    assert token in invite
    assert token not in join


@every_version
@pytest.mark.parametrize("proof", [None, 5, {}, {"signed": "x"}, {"signed": {"token": 5}}])
def test_a_malformed_third_party_invite_selects_nothing(version: str, proof: object) -> None:
    """It is refused later, without an exception here."""
    pairs = selected(version, "m.room.member", BOB, membership="invite", third_party_invite=proof)

    assert pairs == {POWER_LEVELS, JOIN_RULES, member(ALICE), member(BOB)}


@pytest.mark.parametrize("version", versions(restricted_joins=True))
def test_a_restricted_join_depends_on_the_authorising_user(version: str) -> None:
    """Their membership and power make the join possible."""
    fields = {"join_authorised_via_users_server": CAROL}

    join = selected(version, "m.room.member", ALICE, membership="join", **fields)
    leave = selected(version, "m.room.member", ALICE, membership="leave", **fields)

    assert join == {POWER_LEVELS, JOIN_RULES, member(ALICE), member(CAROL)}
    assert leave == {POWER_LEVELS, member(ALICE)}


@pytest.mark.parametrize("version", versions(restricted_joins=False))
def test_no_user_authorises_joins_before_version_8(version: str) -> None:
    """Servers of that time would refuse the surplus auth event."""
    pairs = selected(
        version,
        "m.room.member",
        ALICE,
        membership="join",
        join_authorised_via_users_server=CAROL,
    )

    assert member(CAROL) not in pairs
