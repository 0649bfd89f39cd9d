"""The start of a server: errors end in a sentence, and leave nothing behind."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import drop_database, fresh_database
from tests.support.program import free_port

pytestmark = pytest.mark.interop

PROGRAM = Path(sys.executable).with_name("homeserver")
# Imports, the database's creation, its start, the migrations, and some time after.
MOMENTS = (0.0, 0.05, 0.2, 0.5, 1.0, 1.6, 2.4)

# Becomes another user once everything is loaded, as that user may not be able to read the checkout.
AS_NOBODY = """
import os, sys
import homeserver.app, homeserver.cli.rooms, homeserver.cli.run, homeserver.cli.accounts.users
from homeserver.cli.main import main
os.setgid(65534), os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user who runs PostgreSQL may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def configure(folder: Path, **settings: object) -> None:
    defaults = {"passwords": {"hash_cost": "lowest"}, "listeners": [{"port": 0}]}
    (folder / "homeserver.yaml").write_text(json.dumps(defaults | settings))


def begin(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """Start the program, in a session of its own, as a terminal would."""
    return subprocess.Popen(
        [PROGRAM, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        # A shell makes the processes that it starts in the background ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def run(folder: Path, *words: str) -> tuple[int, str]:
    """Run the program to its end; the exit status and all output."""
    with begin(folder, *words) as process:
        printed, _ = process.communicate(timeout=60)
        return process.returncode, printed


def processes_in(folder: Path) -> list[int]:
    """Every process with the folder in its command line, such as its database."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def wait_for_program_code(process: "subprocess.Popen[str]") -> None:
    """Wait until Python has started, whose own traceback for Ctrl-C cannot be avoided."""
    for python_catches in (True, False):
        give_up = time.monotonic() + 20
        while _catches_sigint(process.pid) != python_catches:
            if time.monotonic() > give_up:
                process.kill()
                raise AssertionError("the program does not start")
            time.sleep(0.0005)


def _catches_sigint(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught & 1 << (signal.SIGINT - 1))


@pytest.mark.parametrize("log", [{}, {"file": "server.log"}], ids=["terminal", "file"])
def test_a_port_in_use_is_reported_in_a_sentence(log: dict[str, str], folder: Path) -> None:
    """With the address, in the log and in the operator's terminal."""
    dsn = fresh_database()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        listener = {"port": port, "bind": "127.0.0.1"}
        configure(folder, database={"dsn": dsn}, listeners=[listener], log=log)

        status, printed = run(folder, "run")

    drop_database(dsn)
    reported = f"cannot listen on 127.0.0.1:{port}: another program uses it"
    assert status == 1
    assert printed.count(reported) == 1
    assert "Traceback" not in printed
    if log:
        logged = (folder / "server.log").read_text()
        assert reported in logged
        assert "Traceback" not in logged


@pytest.mark.parametrize(
    ("dsn", "reported"),
    [
        ("host=/nowhere", "cannot use the database: "),
        ("swordfish", "database.dsn is not a connection string of PostgreSQL"),
    ],
)
def test_an_unavailable_database_is_reported_in_a_sentence(
    dsn: str, reported: str, folder: Path
) -> None:
    """The most frequent error of a first start needs no traceback either."""
    configure(folder, database={"dsn": dsn})

    status, printed = run(folder, "run")

    assert status == 1
    assert f"the server did not start: {reported}" in printed
    assert "swordfish" not in printed
    assert "Traceback" not in printed


def test_the_log_names_the_address(folder: Path) -> None:
    """As typed into a browser."""
    dsn, port = fresh_database(), free_port()
    configure(folder, database={"dsn": dsn}, listeners=[{"port": port, "bind": "127.0.0.1"}])
    printed = ""
    with begin(folder, "run") as server:
        assert server.stdout is not None
        for line in server.stdout:
            printed += line
            if "Ctrl-C" in line:
                server.send_signal(signal.SIGTERM)

    drop_database(dsn)
    assert server.returncode == 0
    assert f"listening on 127.0.0.1:{port}\n" in printed


def test_a_first_start_reports_its_slow_step(folder: Path) -> None:
    """An operator does not wonder whether it hangs."""
    configure(folder)
    printed = []
    with begin(folder, "run") as server:
        assert server.stdout is not None
        for line in server.stdout:
            printed.append(line)
            if "Ctrl-C" in line:
                os.killpg(server.pid, signal.SIGINT)

    order = ["homeserver localhost starts", "creating the database in", "ready at"]
    places = [next(i for i, line in enumerate(printed) if text in line) for text in order]
    assert places == sorted(places)


def test_a_second_server_on_the_same_data_is_reported_in_a_sentence(folder: Path) -> None:
    """An operator who starts the server twice sees that it is already running."""
    configure(folder)
    with begin(folder, "run") as first:
        assert first.stdout is not None
        for line in first.stdout:
            if "Ctrl-C" in line:
                status, printed = run(folder, "run")
                first.send_signal(signal.SIGINT)

    assert status == 1
    assert f"did not start: Another server uses {folder}/data/postgres" in printed
    assert "Traceback" not in printed
    assert "Error" not in printed
    assert first.returncode == 0


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_ends_a_start_without_a_word_too_many(moment: float, folder: Path) -> None:
    """At any moment: no traceback, no database left running, and the next start succeeds."""
    configure(folder)
    with begin(folder, "run") as server:
        wait_for_program_code(server)
        time.sleep(moment)
        os.killpg(server.pid, signal.SIGINT)  # to all of the terminal's processes
        printed, _ = server.communicate(timeout=30)

    assert server.returncode in (0, -signal.SIGINT), printed
    assert "Traceback" not in printed
    assert " ERROR " not in printed
    assert " CRITICAL " not in printed
    assert processes_in(folder) == []


@pytest.mark.parametrize("moment", [0.0, 0.8, 1.8])
def test_ctrl_c_ends_a_command_that_had_started_the_database(moment: float, folder: Path) -> None:
    """The database is stopped again."""
    configure(folder)
    with begin(folder, "user", "list") as command:
        wait_for_program_code(command)
        time.sleep(moment)
        os.killpg(command.pid, signal.SIGINT)
        printed, _ = command.communicate(timeout=30)

    assert "Traceback" not in printed
    assert processes_in(folder) == []


def test_a_second_ctrl_c_ends_at_once(folder: Path) -> None:
    """An operator in a hurry need not wait for processes that hang."""
    silent = socket.create_server(("127.0.0.1", 0))  # accepts, and never sends anything
    port = silent.getsockname()[1]
    configure(folder, database={"dsn": f"host=127.0.0.1 port={port} user=a dbname=a"})
    with silent, begin(folder, "run") as server:
        connection, _ = silent.accept()
        server.send_signal(signal.SIGINT)
        time.sleep(0.5)
        server.send_signal(signal.SIGINT)

        server.communicate(timeout=5)
        connection.close()

    assert server.returncode in (0, 128 + signal.SIGINT)


def test_a_signal_that_comes_twice_is_one(folder: Path) -> None:
    """`make` may forward a signal that all processes got: the server still stops in order."""
    dsn = fresh_database()
    configure(folder, database={"dsn": dsn})
    printed = ""
    with begin(folder, "run") as server:
        assert server.stdout is not None
        for line in server.stdout:
            printed += line
            if "Ctrl-C" in line:
                server.send_signal(signal.SIGTERM)
                server.send_signal(signal.SIGTERM)

    drop_database(dsn)
    assert server.returncode == 0
    assert "Main loop terminated" in printed


@pytest.mark.parametrize("words", [("user", "list"), ("room", "show", "#a:localhost"), ("run",)])
def test_data_of_another_user_is_reported_in_a_sentence(
    words: tuple[str, ...], folder: Path
) -> None:
    """An operator who forgot `sudo -u` sees the reason."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    configure(folder)
    (folder / "homeserver.yaml").chmod(0o644)
    (folder / "data" / "postgres").mkdir(parents=True)
    (folder / "data").chmod(0o700)

    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )

    printed = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Permission denied" in printed
    assert "Traceback" not in printed


def test_a_server_without_accounts_says_how_to_make_one(folder: Path) -> None:
    """An empty list would look like a failure."""
    dsn = fresh_database()
    configure(folder, database={"dsn": dsn})

    status, printed = run(folder, "user", "list")
    _, reports = run(folder, "report", "list")

    drop_database(dsn)
    assert status == 0
    assert printed == f"There are no accounts yet. To create one: {PROGRAM} user add NAME\n"
    assert reports == "There are no reports.\n"
