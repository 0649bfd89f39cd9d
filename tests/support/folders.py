"""Folders that tests write into, outside of the checkout, and removed after the test.

They are in memory where the system has a disk in memory. A database of its own for each test is 300
files: on another disk, making and removing them takes most of the time of such a test.
"""

import os
import shutil
import tempfile
from pathlib import Path
from unittest import TestCase

MEMORY_DISK = Path("/dev/shm")
MEMORY_NEEDED = 4 << 30  # bytes


def use_memory_disk() -> None:
    """Make temporary folders on it by default, in this process and in those that it starts.

    A `TMPDIR` of the environment stays in force.
    """
    if "TMPDIR" not in os.environ and _is_suitable(MEMORY_DISK):
        os.environ["TMPDIR"] = os.fspath(MEMORY_DISK)
        tempfile.tempdir = None  # it is determined again


def temporary_folder(test: TestCase) -> Path:
    """An empty folder for one test; its path is short enough for Unix sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="homeserver-"))
    test.addCleanup(shutil.rmtree, folder)
    return folder


def _is_suitable(disk: Path) -> bool:
    """Whether a disk has enough room for databases; some tests run programs from it, too."""
    return (
        disk.is_dir()
        and os.access(disk, os.W_OK)
        and shutil.disk_usage(disk).free > MEMORY_NEEDED
        and not os.statvfs(disk).f_flag & os.ST_NOEXEC
    )
