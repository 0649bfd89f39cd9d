"""What the server must remember of itself between two starts.

Owns the table `server_state` (migrations/0001_base.sql), one row a fact.
"""

from homeserver.storage.database import Connection


class WrongServer(Exception):
    """The database belongs to a server of another name."""


async def claim_server_name(db: Connection, server_name: str) -> None:
    """Bind the database to a server name at the first start, and check it at later ones.

    Every user, room and event carries the name, so under another one they would be strangers'.
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


async def reserve_positions(db: Connection, count: int) -> int:
    """Reserve the next `count` positions of the log; gives the position before the first of them.

    Positions are reserved before they are used. What a process had reserved when it died is never
    given out again, so a token that names such a position stays below everything that comes after.
    """
    return await _add(db, "reserved_positions", count) - count


async def count_boot(db: Connection) -> int:
    """Count this start of the server: 1 for the first one."""
    return await _add(db, "boots", 1)


async def _add(db: Connection, key: str, amount: int) -> int:
    cursor = await db.execute(
        """
        INSERT INTO server_state (key, value) VALUES (%(key)s, %(amount)s::int8::text)
            ON CONFLICT (key)
            DO UPDATE SET value = (server_state.value::int8 + %(amount)s::int8)::text
        RETURNING value::int8
        """,
        {"key": key, "amount": amount},
    )
    row = await cursor.fetchone()
    assert row is not None, "an upsert returns its row"
    return int(row[0])
