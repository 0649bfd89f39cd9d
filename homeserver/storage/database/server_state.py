"""Server state: values that the server keeps between two starts.

Owns the table `server_state` (migrations/0001_base.sql), one row per value.
"""

from homeserver.storage.database.database import Connection


class WrongServer(Exception):
    """The database belongs to a server of another name."""


async def claim_server_name(db: Connection, server_name: str) -> None:
    """Bind the database to a server name at the first start, and check it at later ones.

    Every user, room and event id contains the name, so under another name none would be local.
    Raises `WrongServer`.
    """
    cursor = await db.execute(
        """
        INSERT INTO server_state (key, value) VALUES ('server_name', %s)
            ON CONFLICT (key) DO UPDATE SET value = server_state.value
        RETURNING value
        """,
        (server_name,),
    )
    row = await cursor.fetchone()
    if row is not None and row[0] != server_name:
        raise WrongServer(
            f"This database belongs to the server {row[0]}, and cannot serve {server_name}: "
            "a server cannot change its name. Correct server_name, or use another database."
        )


async def reserve_positions(db: Connection, count: int, *, above: int) -> int:
    """Move the bound of positions up by `count`; returns the position above which a log may begin.

    No position above the bound has been handed out. So a log that begins above the old one uses
    none that a process before it has used, and a token from before stays below all that follows. It
    begins above `above`, too.
    """
    return await _add(db, "reserved_positions", count, above) - count


async def raise_position_bound(db: Connection, bound: int) -> None:
    """Move the bound of positions up, to `bound`."""
    await _add(db, "reserved_positions", 0, bound)


async def reserve_event_numbers(db: Connection, count: int) -> int:
    """Reserve the next `count` event numbers; returns the number before the first of them.

    Numbers that a process had reserved when it died are never reserved again.
    """
    return await _add(db, "reserved_event_numbers", count) - count


async def probe_reading(db: Connection) -> None:
    """Read a value, to check that the database answers."""
    cursor = await db.execute("SELECT value FROM server_state WHERE key = 'server_name'")
    await cursor.fetchone()


async def probe_writing(db: Connection) -> None:
    """Write a value, to check that the database stores it."""
    await db.execute(
        """
        INSERT INTO server_state (key, value) VALUES ('probe', now()::text)
            ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value
        """
    )


async def _add(db: Connection, key: str, amount: int, least: int = 0) -> int:
    """Add to a number, which counts as `least` if it is smaller; returns the sum."""
    cursor = await db.execute(
        """
        INSERT INTO server_state (key, value)
        VALUES (%(key)s, (%(least)s::int8 + %(amount)s::int8)::text)
            ON CONFLICT (key) DO UPDATE
           SET value = (GREATEST(server_state.value::int8, %(least)s::int8)
                        + %(amount)s::int8)::text
        RETURNING value::int8
        """,
        {"key": key, "amount": amount, "least": least},
    )
    row = await cursor.fetchone()
    assert row is not None, "an upsert returns its row"
    return int(row[0])
