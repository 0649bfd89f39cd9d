"""The event graph in the DOT language of Graphviz, and as a picture drawn by Graphviz.

Format: https://graphviz.org/doc/info/lang.html
"""

import shutil
import subprocess

from homeserver.cli.errors import CommandError
from homeserver.cli.plain_text import plain
from homeserver.rooms.diagnostics.room_graph import GraphEvent, Mark, RoomGraph

SECONDS = 120  # for Graphviz to draw
FILLS = {
    Mark.ACCEPTED: "#e8f0fe",
    Mark.SOFT_FAILED: "#fff3cd",
    Mark.REJECTED: "#f8d7da",
    Mark.REDACTION_PENDING: "#e2d9f3",
    Mark.OUTLIER: "#f1f1f1",
    Mark.MISSING: "#ffffff",
}
STATE_FILL = "#d4edda"  # of an accepted state event
_LONGEST = 40  # characters on a line of a label


def dot(graph: RoomGraph) -> str:
    """The graph as DOT text; edges lead from an event to its prev events."""
    lines = [
        "digraph room {",
        '  node [fontname="sans-serif", fontsize=10, style=filled, color="#555555"];',
        '  edge [color="#555555", arrowsize=0.6];',
    ]
    drawn = {event.event_id for event in graph.events} | set(graph.beyond)
    lines += [f"  {_quoted(event.event_id)} [{_attributes(event)}];" for event in graph.events]
    lines += [f'  {_quoted(each)} [label="…", shape=plaintext, style=""];' for each in graph.beyond]
    lines += [
        f"  {_quoted(event.event_id)} -> {_quoted(prev)};"
        for event in graph.events
        for prev in event.prev_event_ids
        if prev in drawn
    ]
    return "\n".join([*lines, "}", ""])


def svg(dot_text: str) -> bytes:
    """The picture that Graphviz draws. Raises `CommandError` if Graphviz is missing, or fails."""
    program = shutil.which("dot")
    if program is None:
        raise CommandError(
            "Graphviz is not installed: install it (the program `dot`), or write the graph with "
            "--dot FILE and draw it on another machine"
        )
    try:
        done = subprocess.run(  # noqa: S603  # the program is Graphviz, its input is trusted
            [program, "-Tsvg"], input=dot_text.encode(), capture_output=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CommandError("Graphviz takes too long: draw fewer events with --last") from None
    if done.returncode != 0:
        raise CommandError(f"Graphviz failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _attributes(event: GraphEvent) -> str:
    attributes = {
        "label": _label(event),
        "shape": "ellipse" if event.state_key is None else "box",
        "fillcolor": FILLS[event.mark],
    }
    if event.mark is Mark.ACCEPTED and event.state_key is not None:
        attributes["fillcolor"] = STATE_FILL
    if event.mark in (Mark.OUTLIER, Mark.MISSING) or event.is_backfilled:
        attributes["style"] = "filled,dashed"
    if event.is_extremity:
        attributes["peripheries"] = "2"
    if event.reason is not None:
        attributes["tooltip"] = plain(event.reason)
    return ", ".join(f"{name}={_quoted(value)}" for name, value in attributes.items())


def _label(event: GraphEvent) -> str:
    if event.mark is Mark.MISSING:
        lines = [event.event_id, "missing"]
    else:
        lines = [event.type]
        if event.membership is not None:
            lines.append(f"{event.state_key}: {event.membership}")
        elif event.state_key:
            lines.append(f"({event.state_key})")
        lines += [event.sender, f"{event.event_id[:12]}  depth {event.topological_depth}"]
        if event.claimed_depth != event.topological_depth:
            lines.append(f"claims depth {event.claimed_depth}")
        if event.mark is not Mark.ACCEPTED:
            lines.append(event.mark.value)
        if event.is_backfilled:
            lines.append("past")
    return "\n".join(_shortened(plain(line)) for line in lines)


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _quoted(text: str) -> str:
    r"""A quoted string in DOT. A backslash is literal unless it comes before a character that it
    escapes.
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
