"""A search for the process that listens on a local port, if this user may see it (Linux)."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"  # a state in /proc/net/tcp, https://www.kernel.org/doc/Documentation/networking/


def find_port_holders(port: int) -> list[tuple[int, str]]:
    """Process id and command of each process that listens on a TCP port, on any address."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    return [
        (int(process.name), _command(process))
        for process in PROC.glob("[0-9]*")
        if sockets and not sockets.isdisjoint(_open_files(process))
    ]


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _open_files(process: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):  # it has ended, or belongs to another user
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(descriptor.readlink())


def _command(process: Path) -> str:
    with contextlib.suppress(OSError):
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        return " ".join(words).strip()
    return "a program"
