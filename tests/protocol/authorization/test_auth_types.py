"""The selection of auth events: what an event leans on, and nothing else."""

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
    """What is selected for an event of ALICE, the create event aside; nothing may come twice."""
    pairs = auth_types_for(ROOM_VERSIONS[version], event_type, ALICE, state_key, content)
    assert len(pairs) == len(set(pairs))
    return set(pairs) - {CREATE}


@every_version
def test_a_create_event_leans_on_nothing(version: str) -> None:
    """It is the first."""
    assert auth_types_for(ROOM_VERSIONS[version], "m.room.create", ALICE, "", {}) == []


@every_version
def test_a_message_leans_on_power_and_membership(version: str) -> None:
    """That is all that its permission depends on."""
    assert selected(version, "m.room.message") == {POWER_LEVELS, member(ALICE)}


@every_version
def test_the_create_event_is_selected_unless_the_room_id_implies_it(version: str) -> None:
    """From version 12 on it must not be."""
    pairs = auth_types_for(ROOM_VERSIONS[version], "m.room.message", ALICE, None, {})

    assert (CREATE in pairs) == ROOM_VERSIONS[version].create_in_auth_events


@every_version
@pytest.mark.parametrize("membership", ["join", "invite", "knock"])
def test_coming_in_leans_on_the_join_rules(version: str, membership: str) -> None:
    """They say who may."""
    assert selected(version, "m.room.member", BOB, membership=membership) == {
        POWER_LEVELS,
        JOIN_RULES,
        member(ALICE),
        member(BOB),
    }


@every_version
@pytest.mark.parametrize("membership", ["leave", "ban"])
def test_going_out_does_not_lean_on_the_join_rules(version: str, membership: str) -> None:
    """Nobody stays because of them."""
    assert selected(version, "m.room.member", BOB, membership=membership) == {
        POWER_LEVELS,
        member(ALICE),
        member(BOB),
    }


@every_version
def test_a_third_party_invite_is_selected_by_its_token(version: str) -> None:
    """The keys that prove it stand there."""
    proof = {"signed": {"token": "abc"}}
    token = ("m.room.third_party_invite", "abc")

    invite = selected(version, "m.room.member", BOB, membership="invite", third_party_invite=proof)
    join = selected(version, "m.room.member", BOB, membership="join", third_party_invite=proof)

    assert token in invite
    assert token not in join


@every_version
@pytest.mark.parametrize("proof", [None, 5, {}, {"signed": "x"}, {"signed": {"token": 5}}])
def test_a_malformed_third_party_invite_selects_nothing(version: str, proof: object) -> None:
    """It is refused later, without an error on the way."""
    pairs = selected(version, "m.room.member", BOB, membership="invite", third_party_invite=proof)

    assert pairs == {POWER_LEVELS, JOIN_RULES, member(ALICE), member(BOB)}


@pytest.mark.parametrize("version", versions(restricted_joins=True))
def test_a_restricted_join_leans_on_who_authorises_it(version: str) -> None:
    """Their membership and power make the join possible."""
    fields = {"join_authorised_via_users_server": CAROL}

    join = selected(version, "m.room.member", ALICE, membership="join", **fields)
    leave = selected(version, "m.room.member", ALICE, membership="leave", **fields)

    assert join == {POWER_LEVELS, JOIN_RULES, member(ALICE), member(CAROL)}
    assert leave == {POWER_LEVELS, member(ALICE)}


@pytest.mark.parametrize("version", versions(restricted_joins=False))
def test_nobody_authorises_joins_before_version_8(version: str) -> None:
    """Servers of that time would refuse the surplus auth event."""
    pairs = selected(
        version,
        "m.room.member",
        ALICE,
        membership="join",
        join_authorised_via_users_server=CAROL,
    )

    assert member(CAROL) not in pairs
