"""Heroes: the members that a room without a name is named after."""

from hypothesis import given
from hypothesis import strategies as st

from homeserver.rooms.discovery.heroes import HEROES, first_members

MEMBERSHIPS = st.sampled_from(["join", "invite", "leave", "ban", "knock"])
ROOMS = st.dictionaries(st.text("abcdefghijk", min_size=1, max_size=2), MEMBERSHIPS)


def test_earliest_members_come_first() -> None:
    """All members see the same names, in whatever order members are stored."""
    came = {"carol": 1, "alice": 2, "bob": 3}
    members = dict.fromkeys(["bob", "alice", "carol"], "join")

    assert first_members(members, came.__getitem__) == ["carol", "alice", "bob"]


def test_former_members_are_named_only_in_empty_rooms() -> None:
    """A chat is named after its members; an empty one after its former members."""
    came = {"alice": 1, "bob": 2, "carol": 3}
    active = {"alice": "join", "bob": "leave", "carol": "invite"}
    empty = {"alice": "join", "bob": "leave", "carol": "ban"}

    assert first_members(active, came.__getitem__) == ["alice", "carol"]
    assert first_members(empty, came.__getitem__) == ["alice", "bob", "carol"]


@given(ROOMS)
def test_there_are_enough_to_leave_the_reader_out(members: dict[str, str]) -> None:
    """Every reader sees five other names, if there are five."""
    order = {user_id: place for place, user_id in enumerate(sorted(members))}
    named = first_members(members, order.__getitem__)
    present = [each for each in members if members[each] in ("join", "invite")]
    eligible = present if len(present) > 1 else list(members)

    assert named == sorted(eligible)[: HEROES + 1]
