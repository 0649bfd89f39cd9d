"""Signing keys of other servers, with the signed responses that contained them.

Owns the table `server_keys` (migrations/0011_federation_keys.sql). Times are milliseconds since the
epoch.
"""

from collections.abc import Sequence

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class StoredKey(msgspec.Struct, frozen=True):
    """One key of a server, and the age of the response that contained it."""

    server_name: str
    key_id: str
    verify_key: str
    valid_until_ts: int
    is_old: bool
    response_valid_until_ts: int
    fetched_ts: int


class StoredResponse(msgspec.Struct, frozen=True):
    """The latest signed response that contained a key."""

    key_id: str
    response: bytes
    response_valid_until_ts: int
    fetched_ts: int


async def load_keys(db: Connection, server_names: Sequence[str]) -> list[StoredKey]:
    """All keys of some servers."""
    async with db.cursor(row_factory=class_row(StoredKey)) as cursor:
        await cursor.execute(
            """
            SELECT server_name, key_id, verify_key, valid_until_ts, is_old,
                   response_valid_until_ts, fetched_ts
              FROM server_keys
             WHERE server_name = ANY(%s)
            """,
            (list(server_names),),
        )
        return await cursor.fetchall()


async def load_responses(db: Connection, server_name: str) -> list[StoredResponse]:
    """The responses about the keys of one server, the newest first; several keys may share one."""
    async with db.cursor(row_factory=class_row(StoredResponse)) as cursor:
        await cursor.execute(
            """
            SELECT key_id, response, response_valid_until_ts, fetched_ts
              FROM server_keys
             WHERE server_name = %s
             ORDER BY fetched_ts DESC, key_id
            """,
            (server_name,),
        )
        return await cursor.fetchall()


async def save_keys(
    db: Connection, keys: Sequence[StoredKey], response: bytes, *, from_origin: bool
) -> None:
    """Store the keys of one response, which replaces older ones.

    A response `from_origin` is always the newest; one of a notary must not be older than the stored
    one.
    """
    await db.execute(
        """
        INSERT INTO server_keys AS known
               (server_name, key_id, verify_key, valid_until_ts, is_old, response,
                response_valid_until_ts, fetched_ts)
        SELECT server_name, key_id, verify_key, valid_until_ts, is_old, %s,
               response_valid_until_ts, fetched_ts
          FROM unnest(%s::text[], %s::text[], %s::text[], %s::int8[], %s::bool[], %s::int8[],
                      %s::int8[])
            AS new (server_name, key_id, verify_key, valid_until_ts, is_old,
                    response_valid_until_ts, fetched_ts)
            ON CONFLICT (server_name, key_id) DO UPDATE
           SET verify_key = excluded.verify_key,
               valid_until_ts = excluded.valid_until_ts,
               is_old = excluded.is_old,
               response = excluded.response,
               response_valid_until_ts = excluded.response_valid_until_ts,
               fetched_ts = excluded.fetched_ts
         WHERE %s OR excluded.response_valid_until_ts >= known.response_valid_until_ts
        """,
        (
            response,
            [key.server_name for key in keys],
            [key.key_id for key in keys],
            [key.verify_key for key in keys],
            [key.valid_until_ts for key in keys],
            [key.is_old for key in keys],
            [key.response_valid_until_ts for key in keys],
            [key.fetched_ts for key in keys],
            from_origin,
        ),
    )
