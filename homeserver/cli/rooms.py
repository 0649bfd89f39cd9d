"""`homeserver room show | graph`: a room and its event graph, on a running or a stopped server."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from homeserver.cli.configuration import load_installed
from homeserver.cli.database import open_database
from homeserver.cli.errors import CommandError
from homeserver.cli.graph_dot import dot, svg
from homeserver.cli.graph_text import ASCII, LEGEND, draw
from homeserver.cli.plain_text import plain
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.settings import Settings
from homeserver.protocol.event_types import MEMBER
from homeserver.rooms.diagnostics.room_graph import RoomGraph
from homeserver.rooms.diagnostics.room_inspection import RoomInspection, RoomReport
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.storage.rooms.partial_rooms import LEFT
from homeserver.storage.rooms.rooms import RoomRow

MAX_SERVERS = 10  # per membership
MAX_GAPS = 20
MEMBERSHIPS = ("join", "invite", "knock", "leave", "ban")


def room(options: argparse.Namespace) -> int:
    """Do what `options.action` names; returns the exit status."""
    settings = load_installed(options.config)
    if options.action == "show":
        _print(lines_of(run_in_reactor(lambda reactor: _report(reactor, settings, options.room))))
        return 0
    graph = run_in_reactor(lambda reactor: _graph(reactor, settings, options))
    text = dot(graph)
    if options.dot is not None:
        _write(options.dot, text.encode())
    if options.svg is not None:
        _write(options.svg, svg(text))
    if options.dot is None and options.svg is None:
        _print([*draw(graph), "", LEGEND])
    return 0


async def _report(reactor: Any, settings: Settings, name: str) -> RoomReport:
    async with open_database(reactor, settings) as db:
        inspection = RoomInspection(db)
        return await inspection.report(await _find(inspection, name))


async def _graph(reactor: Any, settings: Settings, options: argparse.Namespace) -> RoomGraph:
    async with open_database(reactor, settings) as db:
        inspection = RoomInspection(db)
        row = await _find(inspection, options.room)
        if options.around is None:
            return await inspection.newest(row, options.last)
        graph = await inspection.around(row, options.around, options.last)
    if graph is None:
        raise CommandError(f"The room has no event {plain(options.around)}")
    return graph


async def _find(inspection: RoomInspection, name: str) -> RoomRow:
    row = await inspection.find(name)
    if row is None:
        raise CommandError(f"This server does not know the room {plain(name)}")
    return row


def lines_of(report: RoomReport) -> Iterator[str]:
    """The lines that `room show` prints."""
    yield plain(report.room_id)
    yield f"version      {report.version}"
    yield f"directory    {'published' if report.is_published else 'not published'}"
    for alias in report.aliases:
        yield f"alias        {plain(alias)}"
    if report.partial is not None and report.partial.full_state_at is None:
        yield f"state        partial: {len(report.partial.servers)} servers have the full state"
        yield f"             joined by {plain(report.partial.event_id)}"
    elif report.partial is not None and report.partial.full_state_at == LEFT:
        yield "state        partial: the room was left before the full state arrived"
    yield ""
    yield from _members(report.members)
    yield ""
    yield f"state: {_counted(sum(report.state_counts.values()), 'event')}"
    for event_type, events in report.state.items():
        yield from _state(event_type, events, report.state_counts[event_type])
    yield ""
    yield from _events(report)
    yield ""
    yield f"forward extremities: {len(report.extremities)}"
    for stored in report.extremities:
        event = stored.event
        yield f"  {plain(event.event_id)}  depth {stored.topological_depth}  {plain(event.type)}"
    yield f"backward extremities: {len(report.backward_extremities)}"
    for event_id, depth in list(report.backward_extremities.items())[:MAX_GAPS]:
        yield f"  {plain(event_id)}  before depth {depth}"
    if len(report.backward_extremities) > MAX_GAPS:
        yield f"  and {len(report.backward_extremities) - MAX_GAPS:,} more"


def _members(members: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    yield f"members: {sum(members.get('join', {}).values()):,} joined"
    for membership in sorted(members, key=MEMBERSHIPS.index):
        servers = sorted(members[membership].items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{plain(server)} {count:,}" for server, count in servers[:MAX_SERVERS]]
        if len(servers) > MAX_SERVERS:
            shown.append(f"and {len(servers) - MAX_SERVERS:,} more servers")
        total = sum(members[membership].values())
        yield f"  {membership:<7} {total:>7,}  {', '.join(shown)}"


def _state(event_type: str, events: Sequence[StoredEvent], count: int) -> Iterator[str]:
    if event_type == MEMBER:
        yield f"  m.room.member  {count:,}, see above"
        return
    for stored in events:
        event = stored.event
        key = f" ({plain(event.state_key)})" if event.state_key else ""
        yield f"  {plain(event_type)}{key}  {plain(event.event_id)}  {plain(event.sender)}"
    if count > len(events):
        yield f"  {plain(event_type)}  and {count - len(events):,} more"


def _events(report: RoomReport) -> Iterator[str]:
    counts = report.event_counts
    yield f"events: {counts.total:,}"
    for count, what in (
        (counts.timeline, "in the timeline"),
        (counts.backfilled, "backfilled from other servers"),
        (counts.outliers, "outliers"),
        (counts.redaction_pending, "redactions that are withheld from clients, and purged events"),
        (counts.soft_failed, "soft-failed"),
        (counts.rejected, "rejected"),
    ):
        if count or what == "in the timeline":
            yield f"  {count:>7,}  {what}"
        for is_rejected, rule, number in report.refusals:
            if what == ("rejected" if is_rejected else "soft-failed"):
                yield f"             {number:,} by {plain(rule)}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}") from None


def _print(lines: Iterator[str] | Sequence[str]) -> None:
    """Print lines, with ASCII signs if the terminal supports no others."""
    encoding = sys.stdout.encoding or "ascii"
    for line in lines:
        try:
            line.encode(encoding)
        except UnicodeEncodeError:
            line = line.translate(ASCII).encode(encoding, "backslashreplace").decode(encoding)
        print(line)
