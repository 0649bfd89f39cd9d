"""State resolution by scenarios: simultaneous events of users, and the resolved state."""

import pytest

from homeserver.protocol.room_versions import ROOM_VERSIONS, StateResolution
from tests.protocol.authorization.auth_builders import ALICE, ALL_VERSIONS, BOB, CAROL, versions
from tests.protocol.state_resolution.branches import (
    JOIN_RULES,
    POWER_LEVELS,
    TOPIC,
    Branch,
    ForkedRoom,
    public_room,
)

FIRST = versions(state_resolution=StateResolution.V1)
SINCE_2 = [version for version in ALL_VERSIONS if version not in FIRST]
V2 = versions(state_resolution=StateResolution.V2)
V2_1 = versions(state_resolution=StateResolution.V2_1)


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_branches_without_conflict_keep_their_state(version: str) -> None:
    """Messages sent at the same time fork the graph often; the state must not change by that."""
    main = public_room(version, BOB, CAROL)

    resolved = main.room.resolve(main.fork(), main.fork())

    assert resolved == main.state


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_changes_of_different_things_are_all_kept(version: str) -> None:
    """Two people join at the same time, on two servers: both are in the room."""
    main = public_room(version)
    left, right = main.fork(), main.fork()
    left.join("bob", BOB)
    right.join("carol", CAROL)

    resolved = main.room.resolve(left, right)

    assert resolved == {**left.state, **right.state}


@pytest.mark.parametrize("version", SINCE_2)
def test_ban_undoes_what_the_banned_did_meanwhile(version: str) -> None:
    """A malicious moderator cannot evade the ban by sending through a server that lags."""
    main = public_room(version, BOB, bob=50)
    main.topic("fine", by=ALICE)
    left, right = main.fork(), main.fork()
    left.member("ban", BOB, "ban", by=ALICE, at=9000)
    right.topic("rude", by=BOB, at=10)

    resolved = main.room.resolve(left, right)

    assert resolved["m.room.member", BOB] == "$ban"
    assert resolved[TOPIC] == "$fine"


@pytest.mark.parametrize("version", SINCE_2)
def test_demotion_undoes_what_the_demoted_did_meanwhile(version: str) -> None:
    """Demoting a user takes effect against their own changes of power levels."""
    main = public_room(version, BOB, CAROL, bob=60)
    left, right = main.fork(), main.fork()
    left.levels("demote bob", by=ALICE, bob=0, at=9000)
    right.levels("promote carol", by=BOB, bob=60, carol=60, at=10)

    resolved = main.room.resolve(left, right)

    assert resolved[POWER_LEVELS] == "$demote bob"


@pytest.mark.parametrize("version", SINCE_2)
def test_later_change_wins_among_equals(version: str) -> None:
    """Of two topics by users of the same power, the later one is seen."""
    main = public_room(version, BOB, CAROL, bob=50, carol=50)
    left, right = main.fork(), main.fork()
    left.topic("early", by=CAROL, at=5000)
    right.topic("late", by=BOB, at=6000)

    resolved = main.room.resolve(left, right)

    assert resolved[TOPIC] == "$late"


@pytest.mark.parametrize("version", V2)
def test_change_under_newer_power_levels_wins(version: str) -> None:
    """Time stamps are claims; an event based on newer power levels comes after the older."""
    main = public_room(version, BOB, bob=50)
    old = main.fork()
    old.topic("based on old levels", by=BOB, at=9000)
    main.levels("newer levels", by=ALICE, bob=51)
    old.state[POWER_LEVELS] = main.state[POWER_LEVELS]
    main.topic("based on newer levels", by=BOB, at=100)

    resolved = main.room.resolve(old, main)

    assert resolved[TOPIC] == "$based on newer levels"


@pytest.mark.parametrize("version", SINCE_2)
def test_moderator_cannot_act_after_the_room_was_closed_to_them(version: str) -> None:
    """A simultaneous kick and rejoin end as they would have one after the other."""
    main = public_room(version, BOB, CAROL, bob=50)
    left, right = main.fork(), main.fork()
    left.join_rule("closed", "invite", by=ALICE, at=100)
    left.member("kick carol", CAROL, "leave", by=BOB, at=200)
    right.member("carol leaves", CAROL, "leave", at=150)
    right.join("carol is back", CAROL, at=300)

    resolved = main.room.resolve(left, right)

    assert resolved[JOIN_RULES] == "$closed"
    assert resolved["m.room.member", CAROL] == "$kick carol"


@pytest.mark.parametrize("version", V2)
def test_member_unknown_to_one_branch_is_lost_when_the_room_was_closed(version: str) -> None:
    """The known weakness of v2: unconflicted events decide about earlier ones."""
    room, stale, fresh = _bob_joined_before_the_room_was_closed(version)

    resolved = room.resolve(fresh, stale)

    assert ("m.room.member", BOB) not in resolved


@pytest.mark.parametrize("version", V2_1)
def test_member_unknown_to_one_branch_stays_when_the_room_was_closed(version: str) -> None:
    """The purpose of v2.1: a join is checked by the rules under which it was sent."""
    room, stale, fresh = _bob_joined_before_the_room_was_closed(version)

    resolved = room.resolve(fresh, stale)

    assert resolved["m.room.member", BOB] == "$bob"
    assert resolved[JOIN_RULES] == "$closed"


@pytest.mark.parametrize("version", SINCE_2)
def test_unconflicted_entry_is_never_replaced(version: str) -> None:
    """Entries without conflict stay, even if the auth difference has events for the key."""
    main = public_room(version, BOB, bob=50)
    left, right = main.fork(), main.fork()
    left.levels("raised", by=ALICE, bob=60, at=100)
    left.topic("left", by=BOB, at=200)
    right.topic("right", by=BOB, at=300)
    left.state[POWER_LEVELS] = right.state[POWER_LEVELS]

    resolved = main.room.resolve(left, right)

    assert resolved[POWER_LEVELS] == "$levels"


@pytest.mark.parametrize("version", SINCE_2)
def test_rejected_auth_event_gives_no_power(version: str) -> None:
    """An event with a rejected auth event is checked without it."""
    main = public_room(version, BOB)
    room, state = main.room, main.state
    cited = [state["m.room.member", BOB]]
    if room.version.create_in_auth_events:
        cited.append("$create")
    forged = room.add(
        "forged",
        "m.room.power_levels",
        by=BOB,
        content={"users": {BOB: 100}},
        state_key="",
        auth=cited,
    )
    room.add(
        "coup",
        "m.room.topic",
        by=BOB,
        content={},
        state_key="",
        auth=[*cited, forged.event_id],
    )
    room.rejected.add("$forged")
    left, right = main.fork(), main.fork()
    left.state[TOPIC] = "$coup"
    del left.state[POWER_LEVELS], right.state[POWER_LEVELS]

    resolved = room.resolve(left, right)

    assert TOPIC not in resolved


@pytest.mark.parametrize("version", FIRST)
def test_v1_takes_the_deepest_allowed_event(version: str) -> None:
    """In the first room version depth decides what users see, and power levels who may."""
    main = public_room(version, BOB, CAROL, bob=50, carol=50)
    left, right = main.fork(), main.fork()
    left.topic("deep", by=BOB)
    right.topic("deeper", by=CAROL)

    resolved = main.room.resolve(left, right)

    assert resolved[TOPIC] == "$deeper"


@pytest.mark.parametrize("version", FIRST)
def test_v1_passes_over_events_that_the_resolved_state_forbids(version: str) -> None:
    """Power levels are resolved before all that depends on them."""
    main = public_room(version, BOB, CAROL, bob=50, carol=50)
    left, right = main.fork(), main.fork()
    left.topic("deep", by=CAROL)
    right.topic("deeper", by=BOB)
    right.levels("demote bob", by=ALICE, bob=0, carol=50)

    resolved = main.room.resolve(left, right)

    assert resolved[POWER_LEVELS] == "$demote bob"
    assert resolved[TOPIC] == "$deep"


@pytest.mark.parametrize("version", FIRST)
def test_v1_stops_at_the_first_membership_that_is_not_allowed(version: str) -> None:
    """The list of a user's conflicting memberships is followed upwards as far as the rules go."""
    main = public_room(version, BOB, CAROL, bob=50)
    left, right, third = main.fork(), main.fork(), main.fork()
    left.member("ban", CAROL, "ban", by=BOB)
    right.member("leave", CAROL, "leave")
    third.member("rename", CAROL, "join")

    resolved = main.room.resolve(left, right, third)

    assert resolved["m.room.member", CAROL] == "$ban"


@pytest.mark.parametrize("version", FIRST)
def test_v1_sees_no_conflict_where_only_one_event_is_known(version: str) -> None:
    """An entry that one branch lacks is no conflict in room version 1, and is not checked."""
    main = public_room(version, BOB)
    lacking = main.fork()
    main.topic("only one", by=ALICE)
    main.levels("nobody", by=ALICE)

    resolved = main.room.resolve(lacking, main)

    assert resolved[TOPIC] == "$only one"


@pytest.mark.parametrize("version", ["1", "10", "12"])
def test_long_histories_are_resolved_without_deep_calls(version: str) -> None:
    """A room whose power levels changed a thousand times is still resolved."""
    main = public_room(version, BOB)
    for number in range(3000):
        main.levels(f"levels {number}", by=ALICE, bob=number % 50)
    left, right = main.fork(), main.fork()
    left.levels("left", by=ALICE, bob=1, at=9000)
    right.levels("right", by=ALICE, bob=2, at=9001)

    resolved = main.room.resolve(left, right)

    assert resolved[POWER_LEVELS] == "$right"


def test_every_room_version_has_a_state_resolution() -> None:
    """No room that can be created may be stuck at its first fork."""
    assert {*FIRST, *V2, *V2_1} == set(ROOM_VERSIONS)


def _bob_joined_before_the_room_was_closed(version: str) -> tuple[ForkedRoom, Branch, Branch]:
    """A fresh state, and one without BOB but with the newer join rules."""
    # CAROL's join keeps the old join rules in both auth chains, and so out of their difference.
    main = public_room(version, CAROL)
    stale = main.fork()
    main.join("bob", BOB)
    main.join_rule("closed", "invite", by=ALICE)
    stale.state[JOIN_RULES] = main.state[JOIN_RULES]
    return main.room, stale, main
