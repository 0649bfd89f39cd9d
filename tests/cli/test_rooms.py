"""`homeserver room`: a room and its event graph, on the command line."""

import json
import shutil
import tempfile
from pathlib import Path

import psycopg
import pytest
from twisted.internet.threads import deferToThread

from homeserver.cli import graph_dot
from homeserver.cli.errors import CommandError
from homeserver.cli.graph_dot import dot, svg
from homeserver.cli.main import main
from homeserver.rooms.diagnostics.room_graph import GraphEvent, Mark, RoomGraph
from homeserver.rooms.room.changes import EventsStored
from homeserver.storage.rooms.partial_rooms import partial_room_row
from tests.cli.command_line import homeserver
from tests.rooms.inbound.stored_graph import MixedRoom
from tests.rooms.support import SERVER, RoomsTestCase
from tests.support.postgres import drop_database, fresh_database


class RoomCommandTests(RoomsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.colours = MixedRoom()
        await self.colours.store(self)
        self.room_id = self.colours.graph.room.room_id
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.config = self.folder / "homeserver.yaml"
        settings = {"server_name": SERVER, "database": {"dsn": self.dsn}}
        self.config.write_text(json.dumps(settings))

    async def command(self, *words: str) -> tuple[int, str]:
        """Run `homeserver room …`; the exit status and all output."""
        done = await deferToThread(homeserver, "room", *words, "--config", self.config)
        return done.returncode, done.stdout + done.stderr

    async def test_room_is_shown(self) -> None:
        """An administrator can answer questions about a room."""
        status, printed = await self.command("show", self.room_id)

        assert status == 0, printed
        lines = printed.splitlines()
        assert lines[0] == self.room_id
        assert "version      11" in lines
        assert "members: 1 joined" in lines
        assert f"  m.room.topic  {self.colours.right.event_id}  @alice:one.example" in lines
        assert "        1  soft-failed" in lines
        assert "forward extremities: 2" in lines
        assert "backward extremities: 1" in lines

    async def test_partial_state_is_shown(self) -> None:
        """Counts that are too small are explained."""
        room = await self.rooms.get(self.room_id)
        row = partial_room_row(room.room_nid, "$join", ["one.example", "two.example"])
        await self.log.append(EventsStored(self.log.next_position(), room.room_nid, ()), [row])

        _, printed = await self.command("show", self.room_id)

        assert "state        partial: 2 servers have the full state" in printed.splitlines()

    async def test_graph_is_drawn(self) -> None:
        """Forks and refused events can be seen without any other program."""
        status, printed = await self.command("graph", self.room_id)

        assert status == 0, printed
        assert "├─╮" in printed
        rejected = next(line for line in printed.splitlines() if "✕" in line)
        assert self.colours.rejected.event_id[:16] in rejected
        assert "rejected, rule " in rejected

    async def test_graph_is_written_as_dot(self) -> None:
        """Other programs can draw it more nicely."""
        file = self.folder / "graph.dot"

        status, printed = await self.command(
            "graph", self.room_id, "--around", self.colours.merge.event_id, "--dot", str(file)
        )

        assert (status, printed) == (0, "")
        edge = f'"{self.colours.merge.event_id}" -> "{self.colours.left.event_id}";'
        assert edge in file.read_text("utf-8")

    async def test_errors_are_reported(self) -> None:
        """A typing error ends in a sentence."""
        for words, sentence in (
            (("show", "!no:where"), "This server does not know the room !no:where\n"),
            (("graph", self.room_id, "--around", "$x"), "The room has no event $x\n"),
            (
                ("graph", self.room_id, "--dot", "/nowhere/x.dot"),
                "cannot write /nowhere/x.dot: No such file or directory\n",
            ),
        ):
            assert await self.command(*words) == (1, sentence)


@pytest.mark.parametrize("number", ["0", "2001", "many"])
def test_drawing_is_bounded(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No administrator draws a million events by accident."""
    with pytest.raises(SystemExit):
        main(["room", "graph", "!room:one.example", "--last", number])

    assert "--last" in capsys.readouterr().err


GRAPH = RoomGraph(
    [
        GraphEvent("$b", Mark.REJECTED, ("$a", "$old"), "m.x", "", "@a:b", reason='rule "5"'),
        GraphEvent('$"a\\\n', Mark.ACCEPTED, ("$old",), 'm."\\', None, "@a:b", is_extremity=True),
    ],
    ["$old"],
)


def test_dot_text_is_valid_whatever_events_are_called() -> None:
    """In old rooms servers choose event ids, and some choose quotes."""
    text = dot(GRAPH)

    assert r'"$\"a\\\n" -> "$old";' in text
    assert '"$b" -> "$a"' not in text
    assert 'peripheries="2"' in text
    if shutil.which("dot"):
        assert b"<svg" in svg(text)


def test_missing_graphviz_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Graphviz, an operator learns what to install, and what works without it."""
    monkeypatch.setattr(graph_dot.shutil, "which", lambda _: None)

    with pytest.raises(CommandError, match="--dot FILE"):
        svg(dot(GRAPH))


def test_state_nodes_are_collected_at_once(tmp_path: Path) -> None:
    """An operator who has just purged a large room need not wait for the next nights."""
    dsn = fresh_database()
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO state_nodes (hash, node) VALUES ('hash', 'node')")
    config = tmp_path / "homeserver.yaml"
    config.write_text(json.dumps({"server_name": "a", "database": {"dsn": dsn}}))

    done = homeserver("state", "sweep", "--config", config)

    drop_database(dsn)
    assert (done.returncode, done.stdout + done.stderr) == (0, "Removed 1 state nodes, kept 0\n")
