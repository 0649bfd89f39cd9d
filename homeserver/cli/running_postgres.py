"""A search for the embedded PostgreSQL of a running server, or one that was left running.

Spec of `postmaster.pid`: https://www.postgresql.org/docs/18/storage-file-layout.html
"""

from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo


def find_running(directory: Path) -> str | None:
    """The connection string of the cluster under `directory`, if it answers; blocks."""
    try:
        lines = (directory / "pgdata" / "postmaster.pid").read_text().splitlines()
        dsn = make_conninfo(host=lines[4], user="postgres", dbname="postgres", connect_timeout=5)
        psycopg.connect(dsn).close()
    except (OSError, IndexError, psycopg.OperationalError):
        return None
    return dsn
