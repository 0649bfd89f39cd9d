"""What the search index has in the database."""

import psycopg

from homeserver.search.index_entries import IndexEntry, unpack_entries


def stored_entries(dsn: str) -> list[IndexEntry]:
    """The entries of all blocks."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT entries FROM search_blocks").fetchall()
    return [entry for (packed,) in rows for entry in unpack_entries(packed)]
