"""Joining a room, in every room version."""

import pytest

from homeserver.protocol.authorization.auth_rules import check_auth
from tests.protocol.authorization.auth_builders import (
    ALICE,
    ALL_VERSIONS,
    BOB,
    CAROL,
    DAVE,
    assert_refused,
    create,
    event,
    join,
    knock,
    member,
    room,
    versions,
)

every_version = pytest.mark.parametrize("version", ALL_VERSIONS)
with_knocks = pytest.mark.parametrize("version", versions(knocking=True))
with_restricted = pytest.mark.parametrize("version", versions(restricted_joins=True))


@every_version
def test_the_creator_joins_the_new_room(version: str) -> None:
    """No member exists who could invite the first one."""
    made = create(version)
    state = room(version, members=(), join_rule=None)

    check_auth(
        event(
            "m.room.member",
            by=ALICE,
            version=version,
            content={"membership": "join"},
            state_key=ALICE,
            prev=[made],
        ),
        state,
    )


@every_version
def test_no_other_user_joins_the_new_room(version: str) -> None:
    """No other user can take over a room that was only just created."""
    first = event(
        "m.room.member",
        by=BOB,
        version=version,
        content={"membership": "join"},
        state_key=BOB,
        prev=[create(version)],
    )

    assert_refused(first, room(version, members=(), join_rule=None), rule="5.3.7")


@every_version
def test_the_creator_needs_an_invite_to_come_back(version: str) -> None:
    """The exception holds only for the first event after the creation."""
    state = room(version, members={ALICE: "leave"})

    assert_refused(join(ALICE, version=version), state, rule="5.3.7")


@every_version
def test_no_user_joins_for_another(version: str) -> None:
    """A user joins only by their own event."""
    joined = member(BOB, "join", by=ALICE, version=version)

    assert_refused(joined, room(version, join_rule="public"), rule="5.3.2")


@every_version
@pytest.mark.parametrize("join_rule", ["public", "invite"])
def test_the_banned_do_not_join(version: str, join_rule: str) -> None:
    """A ban holds even in a public room."""
    state = room(version, members={ALICE: "join", BOB: "ban"}, join_rule=join_rule)

    assert_refused(join(BOB, version=version), state, rule="5.3.3")


@every_version
def test_anyone_joins_a_public_room(version: str) -> None:
    """This is the meaning of `public`."""
    check_auth(join(CAROL, version=version), room(version, join_rule="public"))


@every_version
@pytest.mark.parametrize("membership", ["invite", "join"])
@pytest.mark.parametrize("join_rule", ["invite", None])
def test_the_invited_join_a_private_room(
    version: str, membership: str, join_rule: str | None
) -> None:
    """An invite allows the join, also in a room without join rules; members may join again."""
    state = room(version, members={ALICE: "join", BOB: membership}, join_rule=join_rule)

    check_auth(join(BOB, version=version), state)


@every_version
def test_the_uninvited_do_not_join_a_private_room(version: str) -> None:
    """The id of a room is no permission."""
    assert_refused(join(BOB, version=version), room(version), rule="5.3.7")


@every_version
@pytest.mark.parametrize("join_rule", [5, None, {}, ["public"], True])
@pytest.mark.parametrize("membership", ["invite", "join"])
def test_a_join_rule_that_is_no_string_allows_no_join(
    version: str, join_rule: object, membership: str
) -> None:
    """It allows no user to join, not even an invited one, on any server."""
    content = {"join_rule": join_rule}
    rule = event("m.room.join_rules", by=ALICE, version=version, content=content, state_key="")
    state = room(version, members={ALICE: "join", BOB: membership}, join_rule=None, others=[rule])

    assert_refused(join(BOB, version=version), state, rule="5.3.7")


@every_version
def test_the_invited_join_where_the_join_rules_name_none(version: str) -> None:
    """The same as in a room without join rules."""
    rule = event("m.room.join_rules", by=ALICE, version=version, content={}, state_key="")
    state = room(version, members={ALICE: "join", BOB: "invite"}, join_rule=None, others=[rule])

    check_auth(join(BOB, version=version), state)


@every_version
def test_an_unknown_join_rule_allows_no_join(version: str) -> None:
    """`private` has never had a meaning, so not even an invite helps."""
    state = room(version, members={ALICE: "join", BOB: "invite"}, join_rule="private")

    assert_refused(join(BOB, version=version), state, rule="5.3.7")


@with_knocks
def test_the_invited_join_a_room_that_takes_knocks(version: str) -> None:
    """The answer to a knock is an invite."""
    state = room(version, members={ALICE: "join", BOB: "invite"}, join_rule="knock")

    check_auth(join(BOB, version=version), state)


@pytest.mark.parametrize("version", versions(knocking=False))
def test_the_join_rule_knock_means_nothing_before_version_7(version: str) -> None:
    """All servers must agree, so an old room does not get new rules."""
    state = room(version, members={ALICE: "join", BOB: "invite"}, join_rule="knock")

    assert_refused(join(BOB, version=version), state, rule="5.3.7")


@with_restricted
def test_a_member_who_may_invite_authorises_a_restricted_join(version: str) -> None:
    """The members of a space can join without waiting for an invite."""
    state = room(version, join_rule="restricted")

    check_auth(join(BOB, version=version, join_authorised_via_users_server=ALICE), state)


@with_restricted
@pytest.mark.parametrize("membership", ["join", "invite"])
def test_the_invited_join_a_restricted_room(version: str, membership: str) -> None:
    """An invite counts there as in other rooms."""
    state = room(version, members={ALICE: "join", BOB: membership}, join_rule="restricted")

    check_auth(join(BOB, version=version), state)


@with_restricted
@pytest.mark.parametrize("authorising", [None, BOB, CAROL, DAVE])
def test_a_restricted_join_needs_a_member_with_the_power_to_invite(
    version: str, authorising: str | None
) -> None:
    """Neither a missing user, the user, a powerless member nor a non-member authorises a join."""
    state = room(
        version,
        members=(ALICE, CAROL),
        users={DAVE: 100},
        levels={"invite": 50},
        join_rule="restricted",
    )
    fields = {} if authorising is None else {"join_authorised_via_users_server": authorising}

    assert_refused(join(BOB, version=version, **fields), state, rule="5.3.5.2")


@with_restricted
@pytest.mark.parametrize("value", [None, 5, "alice", ["@a:b"]])
def test_a_restricted_join_is_authorised_by_a_user(version: str, value: object) -> None:
    """A value that is not a user id has no server with a signature to check."""
    state = room(version, join_rule="restricted")

    assert_refused(
        join(BOB, version=version, join_authorised_via_users_server=value), state, rule="5.2.1"
    )


@pytest.mark.parametrize("version", versions(restricted_joins=False))
def test_restricted_rooms_do_not_exist_before_version_8(version: str) -> None:
    """An old room with that rule admits no user, as on every older server."""
    state = room(version, join_rule="restricted")

    assert_refused(
        join(BOB, version=version, join_authorised_via_users_server=ALICE), state, rule="5.3.7"
    )


@pytest.mark.parametrize("version", versions(knock_restricted=True))
def test_knock_restricted_rooms_can_be_joined_like_restricted_ones(version: str) -> None:
    """Members of the space may join, others may knock."""
    state = room(version, join_rule="knock_restricted")

    check_auth(join(BOB, version=version, join_authorised_via_users_server=ALICE), state)
    check_auth(knock(CAROL, version=version), state)


@pytest.mark.parametrize("version", versions(knock_restricted=False))
def test_knock_restricted_rooms_do_not_exist_before_version_10(version: str) -> None:
    """Not even an invite helps, since the rule is unknown."""
    state = room(version, members={ALICE: "join", BOB: "invite"}, join_rule="knock_restricted")

    assert_refused(join(BOB, version=version), state, rule="5.3.7")
