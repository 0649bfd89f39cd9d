"""Inviting, leaving, kicking, banning and knocking, in every room version."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.authorization.auth_rules import RuleBroken, check_auth
from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.protocol.authorization.auth_builders import (
    ALICE,
    ALL_VERSIONS,
    BOB,
    CAROL,
    DAVE,
    NEWEST,
    assert_refused,
    ban,
    event,
    invite,
    kick,
    knock,
    leave,
    member,
    room,
    versions,
)

every_version = pytest.mark.parametrize("version", ALL_VERSIONS)
with_knocks = pytest.mark.parametrize("version", versions(knocking=True))
with_restricted = pytest.mark.parametrize("version", versions(restricted_joins=True))
NOT_JOINED = ("leave", "ban", "invite")


@every_version
def test_membership_needs_a_state_key(version: str) -> None:
    """A membership of no user would be state that no server can read."""
    broken = event("m.room.member", by=ALICE, version=version, content={"membership": "join"})

    assert_refused(broken, room(version), rule="5.1")


@every_version
def test_membership_needs_a_membership(version: str) -> None:
    """The same for a change without a membership."""
    broken = event("m.room.member", by=ALICE, version=version, state_key=ALICE)

    assert_refused(broken, room(version), rule="5.1")


@every_version
@pytest.mark.parametrize("target", ["", "nobody", "@nobody"])
@pytest.mark.parametrize("membership", ["join", "invite", "leave", "ban"])
def test_a_user_id_without_a_server_is_refused(version: str, membership: str, target: str) -> None:
    """Every server rejects a member whose server it cannot find."""
    broken = member(target, membership, by=ALICE, version=version)

    assert_refused(broken, room(version), rule="5.1")


@every_version
@pytest.mark.parametrize("target", ["nobody:one.example", ":", "@a b:one.example", "@a:a b"])
def test_any_key_with_a_server_can_be_banned(version: str, target: str) -> None:
    """No room version says what a user id looks like here, and other servers accept it."""
    check_auth(ban(by=ALICE, of=target, version=version), room(version))


@every_version
@pytest.mark.parametrize("membership", ["", "owner", None, 1, ["join"]])
def test_an_unknown_membership_is_refused(version: str, membership: str) -> None:
    """No user gets a membership that other servers do not understand."""
    assert_refused(member(ALICE, membership, version=version), room(version), rule="5.8")


# Invite


@every_version
def test_members_invite(version: str) -> None:
    """Unless the room says otherwise, every member may."""
    check_auth(
        invite(by=BOB, of=CAROL, version=version), room(version, members=(ALICE, BOB), users={})
    )


@every_version
@pytest.mark.parametrize("membership", NOT_JOINED)
def test_only_members_invite(version: str, membership: str) -> None:
    """A user who has left cannot invite others."""
    state = room(version, members={ALICE: membership, BOB: "join"})

    assert_refused(invite(by=ALICE, of=CAROL, version=version), state, rule="5.4.2")


@every_version
@pytest.mark.parametrize("membership", ["join", "ban"])
def test_members_and_banned_users_are_not_invited(version: str, membership: str) -> None:
    """An invite must not throw a member out or undo a ban."""
    state = room(version, members={ALICE: "join", BOB: membership})

    assert_refused(invite(by=ALICE, of=BOB, version=version), state, rule="5.4.3")


@every_version
def test_inviting_takes_the_invite_level(version: str) -> None:
    """A room can reserve invites to its moderators."""
    state = room(version, members=(ALICE, BOB, CAROL), users={BOB: 50}, levels={"invite": 50})

    check_auth(invite(by=BOB, of=DAVE, version=version), state)
    assert_refused(invite(by=CAROL, of=DAVE, version=version), state, rule="5.4.5")


# Leave


@every_version
@pytest.mark.parametrize("membership", ["join", "invite"])
def test_members_leave_and_the_invited_decline(version: str, membership: str) -> None:
    """No user can be held in a room."""
    state = room(version, members={ALICE: "join", BOB: membership})

    check_auth(leave(BOB, version=version), state)


@every_version
@pytest.mark.parametrize("membership", ["leave", "ban"])
def test_users_outside_the_room_cannot_leave(version: str, membership: str) -> None:
    """Most importantly, leaving does not lift a ban."""
    state = room(version, members={ALICE: "join", BOB: membership})

    assert_refused(leave(BOB, version=version), state, rule="5.5.1")


@with_knocks
def test_a_knock_can_be_rescinded(version: str) -> None:
    """A user may rescind their knock."""
    state = room(version, members={ALICE: "join", BOB: "knock"}, join_rule="knock")

    check_auth(leave(BOB, version=version), state)


@every_version
@pytest.mark.parametrize("membership", NOT_JOINED)
def test_only_members_kick(version: str, membership: str) -> None:
    """A user who has left has no power."""
    state = room(version, members={ALICE: membership, BOB: "join"}, users={BOB: 0, CAROL: 0})

    assert_refused(kick(by=ALICE, of=BOB, version=version), state, rule="5.5.2")


@every_version
@pytest.mark.parametrize("membership", ["join", "invite"])
def test_moderators_kick_those_below_them(version: str, membership: str) -> None:
    """A kick removes a member, and rescinds an invite."""
    state = room(version, members={ALICE: "join", BOB: "join", CAROL: membership}, users={BOB: 50})

    check_auth(kick(by=BOB, of=CAROL, version=version), state)


@every_version
@pytest.mark.parametrize("level", [50, 51])
def test_moderators_do_not_kick_those_of_their_level_or_above(version: str, level: int) -> None:
    """Equals cannot remove each other from the room."""
    state = room(version, members=(ALICE, BOB, CAROL), users={BOB: 50, CAROL: level})

    assert_refused(kick(by=BOB, of=CAROL, version=version), state, rule="5.5.5")


@every_version
def test_kicking_takes_the_kick_level(version: str) -> None:
    """A higher level than the target is not enough."""
    state = room(version, members=(ALICE, BOB, CAROL), users={BOB: 49})

    assert_refused(kick(by=BOB, of=CAROL, version=version), state, rule="5.5.5")


@every_version
def test_unbanning_takes_the_ban_level(version: str) -> None:
    """A user who may kick but not ban cannot lift another user's ban."""
    levels = {"ban": 75, "kick": 50}
    state = room(
        version,
        members={ALICE: "join", BOB: "join", CAROL: "join", DAVE: "ban"},
        users={BOB: 50, CAROL: 75},
        levels=levels,
    )

    check_auth(kick(by=CAROL, of=DAVE, version=version), state)
    assert_refused(kick(by=BOB, of=DAVE, version=version), state, rule="5.5.3")


# Ban


@every_version
@pytest.mark.parametrize("membership", [*NOT_JOINED, "join"])
def test_moderators_ban_those_below_them(version: str, membership: str) -> None:
    """Members, guests and users who were never in the room alike."""
    state = room(version, members={ALICE: "join", BOB: "join", CAROL: membership}, users={BOB: 50})

    check_auth(ban(by=BOB, of=CAROL, version=version), state)


@every_version
def test_moderators_cannot_ban_an_equal(version: str) -> None:
    """Power level 50 is enough to ban, but not to ban another 50."""
    state = room(version, members=(ALICE, BOB, CAROL), users={BOB: 50, CAROL: 50})

    assert_refused(ban(by=BOB, of=CAROL, version=version), state, rule="5.6.3")


@every_version
@pytest.mark.parametrize("membership", NOT_JOINED)
def test_only_members_ban(version: str, membership: str) -> None:
    """A moderator who left must join again first."""
    state = room(version, members={ALICE: "join", BOB: membership}, users={BOB: 50})

    assert_refused(ban(by=BOB, of=CAROL, version=version), state, rule="5.6.1")


@pytest.mark.parametrize("version", versions(creators_outrank_everyone=True))
def test_no_user_bans_a_creator(version: str) -> None:
    """Not even the highest possible level suffices, nor does another creator."""
    state = room(
        version,
        members=(ALICE, BOB, CAROL),
        users={BOB: 2**53 - 1},
        creation={"additional_creators": [CAROL]},
    )
    room_id = state.create.room_id

    for sender in (BOB, CAROL):
        banned = event(
            "m.room.member",
            by=sender,
            content={"membership": "ban"},
            state_key=ALICE,
            room_id=room_id,
        )
        assert_refused(banned, state, rule="5.6.3")


@given(
    version=st.sampled_from(ALL_VERSIONS),
    own=st.integers(-100, 200),
    target=st.integers(-100, 200),
    needed=st.integers(-100, 200),
)
def test_no_user_below_the_ban_level_bans(version: str, own: int, target: int, needed: int) -> None:
    """Rule 5.6 as a property: the ban level, and more power than the target."""
    state = room(
        version,
        members=(BOB, CAROL),
        users={BOB: own, CAROL: target},
        levels={"ban": needed},
    )
    banned = ban(by=BOB, of=CAROL, version=version)

    if own >= needed and own > target:
        check_auth(banned, state)
    else:
        assert_refused(banned, state, rule="5.6.3")


# Knock


@with_knocks
@pytest.mark.parametrize("membership", ["leave", "knock"])
def test_users_outside_the_room_knock(version: str, membership: str) -> None:
    """Once, and again with another reason."""
    state = room(version, members={ALICE: "join", BOB: membership}, join_rule="knock")

    check_auth(knock(BOB, version=version), state)


@with_knocks
@pytest.mark.parametrize("join_rule", ["invite", "public", "restricted", None])
def test_a_room_that_takes_no_knocks_gets_none(version: str, join_rule: str | None) -> None:
    """Members of a closed room are not disturbed."""
    assert_refused(knock(BOB, version=version), room(version, join_rule=join_rule), rule="5.7.1")


@with_knocks
def test_no_user_knocks_for_another(version: str) -> None:
    """A knock is for its sender only."""
    state = room(version, join_rule="knock")

    assert_refused(knock(BOB, by=CAROL, version=version), state, rule="5.7.2")


@with_knocks
@pytest.mark.parametrize("membership", ["ban", "invite", "join"])
def test_banned_invited_and_joined_users_do_not_knock(version: str, membership: str) -> None:
    """A knock must not undo a ban or a membership."""
    state = room(version, members={ALICE: "join", BOB: membership}, join_rule="knock")

    assert_refused(knock(BOB, version=version), state, rule="5.7.4")


@pytest.mark.parametrize("version", versions(knocking=False))
def test_knocks_do_not_exist_before_version_7(version: str) -> None:
    """There, it is one of the unknown memberships."""
    assert_refused(knock(BOB, version=version), room(version, join_rule="knock"), rule="5.8")


def test_the_rule_has_the_number_of_the_room_version() -> None:
    """The same refusal is 5.6.3 in version 12 and 4.5.3 in version 6."""
    numbers = {}
    for version in (NEWEST, "6"):
        state = room(version, members=(ALICE, BOB, CAROL), users={BOB: 50, CAROL: 50})
        with pytest.raises(RuleBroken) as broken:
            check_auth(ban(by=BOB, of=CAROL, version=version), state)
        numbers[version] = broken.value.rule

    assert numbers == {NEWEST: "5.6.3", "6": "4.5.3"}
    assert set(numbers) <= set(ROOM_VERSIONS)
