"""The event graph drawn with characters, the newest event on top, like a log of commits.

Each event has a line of its own, in the column of its branch. A column leads from an event down to
one of its prev events; lines between events show where branches split (downwards: an event with
several prev events) and meet (an event that several events follow). All functions are pure; none
prints.
"""

from collections.abc import Iterator, Sequence

from homeserver.cli.plain_text import plain
from homeserver.rooms.diagnostics.room_graph import GraphEvent, Mark, RoomGraph

SIGNS = {
    Mark.SOFT_FAILED: "◐",
    Mark.REJECTED: "✕",
    Mark.REDACTION_PENDING: "◌",
    Mark.OUTLIER: "○",
    Mark.MISSING: "?",
}
STATE_SIGN, MESSAGE_SIGN = "■", "●"
LEGEND = "● event  ■ state event  ◐ soft-failed  ✕ rejected  ◌ withheld  ○ outlier  ? missing"
ASCII = str.maketrans("●■◐✕◌○│─├┤┼╮╭┬╯╰┴┊←…", "*#%x@0|-+++.,+'`+:<~")
_SHORT_ID = 16  # characters of an event id


def draw(graph: RoomGraph) -> list[str]:
    """The lines of a drawing, without trailing blanks."""
    columns = _Columns()
    lines: list[str] = []
    for event in graph.events:
        waiting = columns.leading_to(event.event_id)
        own = waiting[0] if waiting else columns.free()
        if len(waiting) > 1:
            lines.append(columns.junction(own, waiting[1:], "╰╯┴"))
            columns.end(waiting[1:])
        columns.lead(own, event.event_id)
        lines.append(f"{columns.line(own, sign_of(event))}  {label_of(event)}")
        lines += columns.part(own, event.prev_event_ids)
    if columns:
        lines.append(columns.line(None, "", "┊"))
    return [line.rstrip() for line in lines]


def sign_of(event: GraphEvent) -> str:
    """The character that represents an event."""
    return SIGNS.get(event.mark) or (MESSAGE_SIGN if event.state_key is None else STATE_SIGN)


def label_of(event: GraphEvent) -> str:
    """The label beside an event. It cannot move the cursor or begin a new line."""
    event_id = plain(event.event_id)
    if len(event_id) > _SHORT_ID:
        event_id = event_id[:_SHORT_ID] + "…"
    if event.mark is Mark.MISSING:
        return f"{event_id} is missing"
    words = [
        event_id,
        f"{event.topological_depth}",
        plain(event.type),
        *_subject(event),
        *_remarks(event),
    ]
    return "  ".join(words)


def _subject(event: GraphEvent) -> Iterator[str]:
    if event.membership is not None and event.state_key is not None:
        yield f"{plain(event.state_key)} {plain(event.membership)}"
        if event.state_key != event.sender:
            yield f"by {plain(event.sender)}"
        return
    if event.state_key:
        yield f"({plain(event.state_key)})"
    yield plain(event.sender)


def _remarks(event: GraphEvent) -> Iterator[str]:
    if event.mark in (Mark.SOFT_FAILED, Mark.REJECTED):
        yield f"{event.mark.value}, {plain(event.reason or '')}"
    elif event.mark in (Mark.OUTLIER, Mark.REDACTION_PENDING):
        yield event.mark.value
    if event.claimed_depth != event.topological_depth:
        yield f"claims depth {event.claimed_depth}"
    if event.is_backfilled:
        yield "past"
    if event.is_extremity:
        yield "← head"


class _Columns:
    """The columns of the drawing, each with the event that it leads down to."""

    def __init__(self) -> None:
        self._leads: list[str | None] = []

    def __bool__(self) -> bool:
        return bool(self._leads)

    def leading_to(self, event_id: str) -> list[int]:
        """The columns that lead to an event, from the left."""
        return [column for column, lead in enumerate(self._leads) if lead == event_id]

    def free(self, after: int = -1) -> int:
        """A free column, to the right of another one if possible."""
        for column, lead in enumerate(self._leads):
            if lead is None and column > after:
                return column
        self._leads.append(None)
        return len(self._leads) - 1

    def lead(self, column: int, event_id: str) -> None:
        self._leads[column] = event_id

    def end(self, columns: Sequence[int]) -> None:
        """Free some columns."""
        for column in columns:
            self._leads[column] = None
        while self._leads and self._leads[-1] is None:
            self._leads.pop()

    def part(self, own: int, prev_event_ids: Sequence[str]) -> list[str]:
        """Connect an event with its prev events; returns the lines that show it."""
        if not prev_event_ids:
            self.end([own])
            return []
        first, *others = prev_event_ids
        self._leads[own] = first
        begun: list[int] = []
        joined: list[int] = []
        for prev in others:
            there = [column for column in self.leading_to(prev) if column != own]
            if there:
                joined.append(there[0])
            else:
                begun.append(self.free(own))
                self.lead(begun[-1], prev)
        if not others:
            return []
        return [self.junction(own, [*begun, *joined], "╭╮┬", joined)]

    def line(self, own: int | None, sign: str, bar: str = "│") -> str:
        """A line with every column continued, and one showing a sign."""
        return " ".join(
            sign if column == own else " " if lead is None else bar
            for column, lead in enumerate(self._leads)
        )

    def junction(
        self, own: int, ends: Sequence[int], corners: str, through: Sequence[int] = ()
    ) -> str:
        """A line that connects a column with others.

        `corners` are drawn where a column ends or begins: leftmost, rightmost, and between; the
        columns `through` continue above and below.
        """
        left, right = min([own, *ends]), max([own, *ends])
        cells: list[str] = []
        for column, lead in enumerate(self._leads):
            inside = left <= column <= right
            if column == own:
                cell = "┼" if left < own < right else "├" if own == left else "┤"
            elif column in ends:
                outermost = 0 if column == left else 1 if column == right else 2
                cell = ("├┤┼" if column in through else corners)[outermost]
            elif lead is None:
                cell = "─" if inside else " "
            else:
                cell = "┼" if inside else "│"
            cells += (cell, "─" if left <= column < right else " ")
        return "".join(cells)
