"""The command `homeserver` for tests: a process for each command, without the cost of its start.

That is half a second of imports. So a process that this module starts (itself, as a program) does
them once, and forks for each command; it ends with the tests. A command has its own arguments,
input, output and exit status, as if a shell had started it.
"""

import atexit
import functools
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import IO, Any

TOP = Path(__file__).resolve().parents[2]
MAX_REQUEST = 65_536  # bytes
HANDLES = 4  # input, output, errors, and the pipe for the status


def homeserver(*words: str | Path, typed: str = "") -> "subprocess.CompletedProcess[str]":
    """Run `homeserver …` to its end, with this input."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as entered,
        tempfile.TemporaryFile("w+", encoding="utf-8") as printed,
        tempfile.TemporaryFile("w+", encoding="utf-8") as complained,
    ):
        entered.write(typed)
        entered.seek(0)
        status = _run([str(word) for word in words], (entered, printed, complained))
        printed.seek(0)
        complained.seek(0)
        return subprocess.CompletedProcess(words, status, printed.read(), complained.read())


def _run(words: list[str], files: tuple[IO[str], IO[str], IO[str]]) -> int:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as status:
        handles = [*(file.fileno() for file in files), writing]
        socket.send_fds(_forks(), [json.dumps(words).encode()], handles)
        os.close(writing)
        # The process alone holds the other end now: it is closed when the process has ended.
        said = status.read()
    return said[0] if said else -signal.SIGKILL


@functools.cache
def _forks() -> socket.socket:
    """The connection to the process that forks for each command."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with far:
        forking = subprocess.Popen(
            [sys.executable, "-m", __name__, str(far.fileno())],
            cwd=TOP,
            env={**os.environ, "PYTHONUTF8": "1"},
            stdin=subprocess.DEVNULL,
            pass_fds=[far.fileno()],
        )
    atexit.register(forking.wait)
    atexit.register(near.close)
    return near


def load() -> None:
    """Import what commands import, but no reactor, whose descriptors processes must not share."""
    import homeserver.cli

    for module in pkgutil.walk_packages(homeserver.cli.__path__, "homeserver.cli."):
        importlib.import_module(module.name)
    assert "twisted.internet.reactor" not in sys.modules


def serve(requests: socket.socket) -> None:
    """Fork for each request, until the tests have ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    while True:
        request, handles, *_ = socket.recv_fds(requests, MAX_REQUEST, HANDLES)
        if not request:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            _be_command(json.loads(request), *handles)
        for handle in handles:
            os.close(handle)


def _be_command(words: list[str], entered: int, printed: int, complained: int, said: int) -> None:
    """Do in this process what Python does, but for freeing memory one object at a time."""
    for number, handle in enumerate((entered, printed, complained)):
        os.dup2(handle, number)
        os.close(handle)
    status = _status(words)
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os.write(said, bytes([status]))
    os._exit(status)


def _status(words: list[str]) -> int:
    """Run the program, and turn whatever ends it into an exit status."""
    from homeserver import __main__ as program

    sys.argv = [str(program.__file__), *words]
    try:
        status: Any = program.main()
    except SystemExit as ending:
        status = ending.code
    except BaseException:
        traceback.print_exc()
        status = 1
    return status if isinstance(status, int) else 1


if __name__ == "__main__":
    load()
    serve(socket.socket(fileno=int(sys.argv[1])))
