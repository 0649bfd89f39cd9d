"""The drawing of an event graph: branches split and meet correctly, whatever events contain."""

from hypothesis import given
from hypothesis import strategies as st

from homeserver.cli.graph_text import ASCII, draw
from homeserver.rooms.diagnostics.room_graph import GraphEvent, Mark, RoomGraph


def event(name: str, *prevs: str, state_key: str | None = None, **how: object) -> GraphEvent:
    how.setdefault("mark", Mark.ACCEPTED)
    return GraphEvent(name, prev_event_ids=prevs, state_key=state_key, **how)  # type: ignore[arg-type]


def shape(*events: GraphEvent) -> list[str]:
    """The drawing without the labels of the events."""
    names = {each.event_id for each in events}
    lines = draw(RoomGraph(events))
    return [
        line[: min((line.find(f"  {name}") for name in names if f"  {name}" in line), default=99)]
        for line in lines
    ]


def test_chain_is_one_column() -> None:
    """The usual room reads like a list."""
    assert shape(event("c", "b"), event("b", "a", state_key=""), event("a")) == ["●", "■", "●"]


def test_branches_part_and_meet() -> None:
    """Two servers sent at the same time, and a third event joined their branches."""
    drawn = shape(event("d", "b", "c"), event("b", "a"), event("c", "a"), event("a"))

    assert drawn == [
        "●",
        "├─╮",
        "● │",
        "│ ●",
        "├─╯",
        "●",
    ]


def test_several_extremities_are_next_to_each_other() -> None:
    """A room that is forked now shows as many branches as it has extremities."""
    drawn = shape(event("c", "a"), event("b", "a"), event("x", "a"), event("a"))

    assert drawn == ["●", "│ ●", "│ │ ●", "├─┴─╯", "●"]


def test_branch_that_another_one_follows_too_is_joined() -> None:
    """Criss-crossing branches stay readable: a line joins the column that is there."""
    drawn = shape(
        event("e", "c", "d"), event("f", "c", "d"), event("c", "a"), event("d", "a"), event("a")
    )

    assert drawn == [
        "●",
        "├─╮",
        "│ │ ●",
        "│ ├─┤",
        "├─┼─╯",
        "● │",
        "│ ●",
        "├─╯",
        "●",
    ]


def test_undrawn_events_continue_below() -> None:
    """A drawing of the newest events shows that the room began earlier."""
    assert shape(event("c", "b"), event("b", "a")) == ["●", "●", "┊"]


def test_each_status_has_its_sign_and_reason() -> None:
    """An operator can see why an event of another server is not shown in the room."""
    refused = [
        event("r", "a", mark=Mark.REJECTED, reason="rule 5: not in the room", type="m.x"),
        event("s", "a", mark=Mark.SOFT_FAILED, reason="rule 6: banned", type="m.x"),
        event("o", "a", mark=Mark.OUTLIER, type="m.x"),
        event("p", "a", is_backfilled=True, claimed_depth=99, type="m.x"),
        event("a", is_extremity=True, type="m.x"),
        event("?", mark=Mark.MISSING),
    ]

    lines = draw(RoomGraph(refused))

    assert lines[0].startswith("✕  r  0  m.x")
    assert lines[0].endswith("rejected, rule 5: not in the room")
    assert "◐  s" in lines[1]
    assert lines[1].endswith("soft-failed, rule 6: banned")
    assert lines[2].endswith("outlier")
    assert lines[3].endswith("claims depth 99  past")
    assert lines[5].endswith("← head")
    assert lines[6] == "?  ? is missing"


def test_remote_users_cannot_draw() -> None:
    """A remote user's event type cannot clear the administrator's screen, or forge a line."""
    lines = draw(RoomGraph([event("$e", type="m.\x1b[2J\nroom\u202e", sender="@eve:\u2028x")]))

    assert len(lines) == 1
    assert lines[0].isprintable()


NAMES = [f"${number}" for number in range(12)]


@st.composite
def graphs(draw_: st.DrawFn) -> list[GraphEvent]:
    """Each event follows some of those below it, or some that are not drawn."""
    events = []
    for number, name in enumerate(NAMES):
        later = [*NAMES[number + 1 :], "$older", "$oldest"]
        prevs = draw_(st.lists(st.sampled_from(later), max_size=4, unique=True))
        events.append(event(name, *prevs))
    return events


def _below(lines: list[str], row: int, column: int) -> set[tuple[int, int]]:
    """The events to which lines lead down from a place in the drawing, as (row, column)."""
    up, down = set("│├┤┼╰╯┴┊●"), set("│├┤┼╭╮┬●")
    seen, ends, todo = {(row, column)}, set(), [(row, column)]
    while todo:
        y, x = todo.pop()
        sign = lines[y][x]
        ways = []
        if sign in down and y + 1 < len(lines) and lines[y + 1].ljust(99)[x] in up:
            ways.append((y + 1, x))
        if (y, x) != (row, column) and sign != "●":
            ways += [(y, x + step) for step in (-1, 1) if _is_level(lines[y], x, step)]
        for place in ways:
            if place not in seen:
                seen.add(place)
                if lines[place[0]][place[1]] == "●":
                    ends.add(place)
                else:
                    todo.append(place)
    return ends


def _is_level(line: str, x: int, step: int) -> bool:
    right, left = set("─├┼╭╰┬┴"), set("─┤┼╮╯┬┴")
    if not 0 <= x + step < len(line):
        return False
    from_here, to_there = (right, left) if step == 1 else (left, right)
    return line[x] in from_here and line[x + step] in to_there


@given(graphs())
def test_every_edge_is_a_line(events: list[GraphEvent]) -> None:
    """The lines down from an event lead to each event that it follows."""
    lines = [line + " " for line in draw(RoomGraph(events))]
    places = {
        name: (row, line.index("●"))
        for name in NAMES
        for row, line in enumerate(lines)
        if f"  {name}  " in line
    }
    # The label may contain no sign that could be mistaken for a line.
    bare = [line.split("  $")[0].ljust(60) for line in lines]

    for each in events:
        reached = _below(bare, *places[each.event_id])
        assert {places[prev] for prev in each.prev_event_ids if prev in places} <= reached


def test_every_sign_has_a_plain_one() -> None:
    """A terminal without Unicode shows the drawing all the same."""
    drawn = "".join(
        draw(RoomGraph([event("d", "b", "c", "e"), event("b", "a"), event("c", "a"), event("e")]))
    )

    assert drawn.translate(ASCII).isascii()
