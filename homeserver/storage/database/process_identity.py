"""The identity of a process: which one it is, among all that ever ran on any machine.

A process id alone names different processes over time and on different machines and containers. It
is unique together with the boot of the machine, the namespace of process ids, and the moment at
which the process began. These are known on Linux only.

Format of `/proc/<pid>/stat`: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
"""

import os
import secrets
import socket
from pathlib import Path

import msgspec

from homeserver.version import VERSION

_PROC = Path("/proc")


class ProcessIdentity(msgspec.Struct, frozen=True):
    """A process: `pid_began` is in clock ticks since the boot, `machine` names boot and namespace.

    `run` is a random name for what one process does as one server. Several servers can run in one
    process, as in tests.
    """

    host: str
    machine: str
    pid: int
    pid_began: int
    version: str = VERSION
    run: str = msgspec.field(default_factory=lambda: secrets.token_hex(4))

    @property
    def application_name(self) -> str:
        """The name by which PostgreSQL knows the connections of this run."""
        return f"homeserver {self.run}"


def this_process() -> ProcessIdentity:
    """The identity of this process, with a new `run`."""
    return ProcessIdentity(socket.gethostname(), _machine(), os.getpid(), _began(os.getpid()) or 0)


def has_ended(machine: str, pid: int, pid_began: int) -> bool:
    """Whether a process is known to have ended; `False` also where this machine cannot know."""
    return bool(machine) and machine == _machine() and _began(pid) != pid_began


def runs_here(machine: str, pid: int, pid_began: int) -> bool:
    """Whether a process is known to run on this machine."""
    return bool(machine) and machine == _machine() and _began(pid) == pid_began


def _machine() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> int | None:
    """When a process began, in clock ticks since the boot; `None` if it does not run."""
    try:
        # The name in parentheses may hold spaces and parentheses.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, began = fields[0], int(fields[19])
    return None if state in "ZX" else began
