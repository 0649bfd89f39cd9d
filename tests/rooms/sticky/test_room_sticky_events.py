"""The bounds of the sticky events of a room: who sends too much has their own dropped."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from homeserver.rooms.sticky.room_sticky_events import (
    MAX_IN_ROOM,
    MAX_OF_SENDER,
    MAX_SOFT_FAILED,
    RoomStickyEvents,
    StickyEvent,
)

FOREVER = 10**9


def sticky(number: int, sender: str = "@a:one", until_ms: int = FOREVER) -> StickyEvent:
    return StickyEvent(number, number, until_ms, sender, 100)


def test_the_first_to_end_of_a_sender_is_dropped() -> None:
    """The others of the sender, and those of everybody else, stay."""
    room = RoomStickyEvents()
    room.add(sticky(0, "@b:one", 1))
    for number in range(1, MAX_OF_SENDER + 1):
        room.add(sticky(number, until_ms=1_000 - number))

    room.add(sticky(MAX_OF_SENDER + 1))

    left = {each.event_nid for each in room.above(-1)}
    assert left == {*range(MAX_OF_SENDER + 2)} - {MAX_OF_SENDER}


def test_a_server_with_many_users_has_only_its_own_dropped() -> None:
    """However many it registers, the calls of others go on."""
    room = RoomStickyEvents()
    for number in range(10):
        room.add(sticky(number, f"@honest{number}:one", 1))

    for number in range(10, 10 + 2 * MAX_IN_ROOM):
        room.add(sticky(number, f"@sock{number}:two"))

    assert len(room) == MAX_IN_ROOM
    assert [each.event_nid for each in room.above(-1)][:10] == [*range(10)]


def test_soft_failed_events_are_bounded() -> None:
    """Anybody who was in the room once can send them."""
    room = RoomStickyEvents()

    for number in range(2 * MAX_SOFT_FAILED):
        room.add_soft_failed(number, "@a:one", FOREVER)

    assert len(room.soft_failed) == MAX_SOFT_FAILED
    assert min(room.soft_failed) == MAX_SOFT_FAILED


def test_an_event_that_is_accepted_after_all_is_no_longer_soft_failed() -> None:
    """It need not be checked again."""
    room = RoomStickyEvents()
    room.add_soft_failed(1, "@a:one", FOREVER)

    room.add(sticky(1))

    assert not room.soft_failed
    assert len(room) == 1


Change = tuple[str, Any, int]
changes = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(1, 9)),
        st.tuples(st.just("remove"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("end"), st.integers(0, 9), st.just(0)),
    ),
    max_size=40,
)


@given(changes, st.integers(0, 30))
def test_it_is_a_bounded_list(plan: list[Change], position: int) -> None:
    """What is above a position is what was added above it, and not removed, dropped or ended."""
    room, model = RoomStickyEvents(), dict[int, StickyEvent]()
    for number, (what, which, until_ms) in enumerate(plan):
        if what == "add":
            model[number] = sticky(number, f"@{which}:one", until_ms)
            room.add(model[number])
        elif what == "remove":
            model.pop(which, None)
            room.remove(which)
        else:
            room.end(which)
            model = {nid: each for nid, each in model.items() if each.until_ms > which}

    assert room.above(position) == [each for each in model.values() if each.position > position]
    for sender in ("@a:one", "@b:one"):
        assert room.of_sender(sender) == [e for e in model.values() if e.sender == sender]
    assert room.is_empty == (not model)
