"""State resolution where the specification can be read in two ways: as other servers read it.

With the other reading, each of these rooms would split between this server and others. The events
are made by hand; their auth events decide.

Spec: https://spec.matrix.org/v1.19/rooms/v2/#state-resolution
"""

from typing import Any

import pytest

from homeserver.protocol.room_versions import ROOM_VERSIONS, StateResolution
from homeserver.protocol.state_resolution.resolution import resolve
from tests.protocol.authorization.auth_builders import ALICE, BOB, CAROL, DAVE, versions
from tests.protocol.state_resolution.branches import POWER_LEVELS, TOPIC, ForkedRoom, public_room

V2 = versions(state_resolution=StateResolution.V2)
SINCE_2 = [*V2, *versions(state_resolution=StateResolution.V2_1)]
MEMBER = "m.room.member"
State = dict[tuple[str, str], str]


class Room:
    """A public room of ALICE with BOB (60), CAROL (100) and DAVE (50), and further events."""

    def __init__(self, version: str) -> None:
        main = public_room(version, BOB, CAROL, DAVE, bob=60, carol=100, dave=50)
        self.common: State = main.state
        self._room: ForkedRoom = main.room
        self._implied = ROOM_VERSIONS[version].room_id_is_create_hash

    def add(
        self,
        name: str,
        event_type: str,
        by: str,
        content: dict[str, Any],
        *auth: str,
        key: str = "",
        at: int,
    ) -> str:
        """Add an event that has the create event and these as auth events; returns its id."""
        cited = [*([] if self._implied else ["$create"]), *auth]
        self._room.add(name, event_type, by=by, content=content, state_key=key, auth=cited, at=at)
        return f"${name}"

    def join(self, name: str, user: str, *auth: str, at: int) -> str:
        return self.add(name, MEMBER, user, {"membership": "join"}, *auth, key=user, at=at)

    def levels(self, name: str, by: str, *auth: str, at: int, key: str = "", **users: int) -> str:
        levels = {BOB: 60, CAROL: 100, DAVE: 50}
        levels |= {user: users[name] for user, name in PEOPLE.items() if name in users}
        if not self._room.version.creators_outrank_everyone:
            levels[ALICE] = 100
        return self.add(name, "m.room.power_levels", by, {"users": levels}, *auth, key=key, at=at)

    def resolve(self, *changes: State) -> State:
        """The resolution of the room's state with each of these changes."""
        states = [{**self.common, **change} for change in changes]
        room = self._room
        return resolve(room.version, states, room.events)


PEOPLE = {BOB: "bob", CAROL: "carol", DAVE: "dave"}


@pytest.mark.parametrize("version", SINCE_2)
def test_event_that_all_states_share_is_in_no_auth_difference(version: str) -> None:
    """(a) It is in the full auth chain of each state, as a part of the state.

    If it were tried again, Carol would be in the room with her topic, although she had left.
    """
    room = Room(version)
    renamed = room.join("renamed", CAROL, "$levels", "$public", "$carol", at=12)
    left = room.add(
        "left", MEMBER, CAROL, {"membership": "leave"}, "$levels", "$carol", key=CAROL, at=10
    )
    back = room.join("back", CAROL, "$levels", "$public", left, at=20)
    one = room.add("one", "m.room.topic", CAROL, {"topic": "1"}, "$levels", renamed, at=15)
    other = room.add("other", "m.room.topic", CAROL, {"topic": "2"}, "$levels", back, at=5)
    room.common[MEMBER, CAROL] = renamed

    resolved = room.resolve({TOPIC: one}, {TOPIC: other})

    assert resolved[TOPIC] == other
    assert resolved[MEMBER, CAROL] == renamed


@pytest.mark.parametrize("version", V2)
def test_power_order_knows_no_paths_through_other_events(version: str) -> None:
    """(b) An event that authorises another only through an unconflicted one may come after it.

    In room version 12 such an event is conflicted itself, since it lies between two that are.
    """
    room = Room(version)
    by_bob = room.levels("by bob", BOB, "$levels", "$bob", at=50, dave=10)
    between = room.join("between", CAROL, by_bob, "$public", "$carol", at=60)
    room.common[MEMBER, CAROL] = room.join("after", CAROL, by_bob, "$public", between, at=70)
    by_carol = room.levels("by carol", CAROL, "$levels", between, at=80, dave=20)

    resolved = room.resolve({POWER_LEVELS: by_bob}, {POWER_LEVELS: by_carol})

    # Carol has more power, so hers is tried first.
    assert resolved[POWER_LEVELS] == by_bob


@pytest.mark.parametrize("version", V2)
def test_auth_events_of_power_events_are_searched_in_the_conflict_alone(version: str) -> None:
    """(c) Auth events of a power event through unconflicted events are tried with the rest."""
    room = Room(version)
    late = room.join("late", DAVE, "$levels", "$public", "$dave", at=90)
    early = room.join("early", DAVE, "$levels", "$public", "$dave", at=40)
    by_dave = room.levels("by dave", DAVE, "$levels", late, at=91, dave=49)
    room.common[POWER_LEVELS] = room.levels("newest", ALICE, by_dave, "$alice", at=92)
    rule = {"join_rule": "invite"}
    closed = room.add("closed", "m.room.join_rules", BOB, rule, by_dave, "$bob", at=93)

    resolved = room.resolve(
        {(MEMBER, DAVE): late, ("m.room.join_rules", ""): closed}, {(MEMBER, DAVE): early}
    )

    # Both joins have the same rank, so the later one counts.
    assert resolved[MEMBER, DAVE] == late


@pytest.mark.parametrize("version", SINCE_2)
def test_power_levels_with_a_state_key_give_no_power(version: str) -> None:
    """(d) They are ordinary state, for which the later time counts."""
    room = Room(version)
    late = room.levels("late", ALICE, "$levels", "$alice", at=90, key="k")
    early = room.levels("early", BOB, "$levels", "$bob", at=10, key="k")
    key = ("m.room.power_levels", "k")

    resolved = room.resolve({key: late}, {key: early})

    assert resolved[key] == late


@pytest.mark.parametrize("version", SINCE_2)
def test_join_rules_with_a_state_key_admit_no_user(version: str) -> None:
    """(d) The same as for power levels."""
    room = Room(version)
    rule = {"join_rule": "public"}
    late = room.add("late", "m.room.join_rules", ALICE, rule, "$levels", "$alice", key="k", at=90)
    early = room.add("early", "m.room.join_rules", BOB, rule, "$levels", "$bob", key="k", at=10)
    key = ("m.room.join_rules", "k")

    resolved = room.resolve({key: late}, {key: early})

    assert resolved[key] == late
