"""External ids: the identities at identity providers with which users sign in.

Owns the table `external_ids` (migrations/0049_external_ids.sql).

Spec: https://spec.matrix.org/v1.19/client-server-api/#sso-client-loginauthentication
"""

from collections.abc import Sequence

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class ExternalId(msgspec.Struct, frozen=True):
    """The identity of a user at a provider. `added_ms` is milliseconds since the epoch."""

    provider: str
    subject: str
    user_id: str
    added_ms: int


async def insert_external_id(db: Connection, new: ExternalId) -> bool:
    """Link an identity with a user; false if it is linked with one already."""
    cursor = await db.execute(
        """
        INSERT INTO external_ids (provider, subject, user_id, added_ms)
        VALUES (%s, %s, %s, %s)
            ON CONFLICT DO NOTHING
        """,
        (new.provider, new.subject, new.user_id, new.added_ms),
    )
    return cursor.rowcount == 1


async def find_external_id_owner(db: Connection, provider: str, subject: str) -> str | None:
    """The user with whom an identity is linked."""
    cursor = await db.execute(
        "SELECT user_id FROM external_ids WHERE provider = %s AND subject = %s",
        (provider, subject),
    )
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


async def external_ids_of(db: Connection, user_id: str) -> list[ExternalId]:
    """All identities of a user, oldest first."""
    async with db.cursor(row_factory=class_row(ExternalId)) as cursor:
        await cursor.execute(
            """
            SELECT provider, subject, user_id, added_ms
              FROM external_ids
             WHERE user_id = %s
             ORDER BY added_ms, provider, subject
            """,
            (user_id,),
        )
        return await cursor.fetchall()


async def has_external_id(db: Connection, user_id: str, providers: Sequence[str]) -> bool:
    """Whether a user has an identity at one of these providers."""
    cursor = await db.execute(
        "SELECT EXISTS (SELECT FROM external_ids WHERE user_id = %s AND provider = ANY(%s))",
        (user_id, list(providers)),
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def delete_external_id(db: Connection, user_id: str, provider: str, subject: str) -> bool:
    """Remove an identity from a user; false if they do not have it."""
    cursor = await db.execute(
        "DELETE FROM external_ids WHERE user_id = %s AND provider = %s AND subject = %s",
        (user_id, provider, subject),
    )
    return cursor.rowcount == 1


async def delete_external_ids_of(db: Connection, user_id: str) -> None:
    """Remove all identities from a user."""
    await db.execute("DELETE FROM external_ids WHERE user_id = %s", (user_id,))
