"""Third-party identifiers of accounts: e-mail addresses and telephone numbers.

Owns the table `third_party_ids` (migrations/0014_third_party_ids.sql). Addresses are canonical, and
each belongs to one account at most.

Spec: https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class ThirdPartyId(msgspec.Struct, frozen=True):
    """One address of one user; times are milliseconds since the epoch."""

    medium: str
    address: str
    user_id: str
    validated_ms: int
    added_ms: int


async def insert_third_party_id(db: Connection, new: ThirdPartyId) -> bool:
    """Add an address to a user, or validate it again; false if it belongs to another user."""
    cursor = await db.execute(
        """
        INSERT INTO third_party_ids (medium, address, user_id, validated_ms, added_ms)
        VALUES (%s, %s, %s, %s, %s)
            ON CONFLICT (medium, address) DO UPDATE SET validated_ms = EXCLUDED.validated_ms
         WHERE third_party_ids.user_id = EXCLUDED.user_id
        """,
        (new.medium, new.address, new.user_id, new.validated_ms, new.added_ms),
    )
    return cursor.rowcount == 1


async def find_third_party_id_owner(db: Connection, medium: str, address: str) -> str | None:
    """The user who has an address."""
    cursor = await db.execute(
        "SELECT user_id FROM third_party_ids WHERE medium = %s AND address = %s",
        (medium, address),
    )
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


async def third_party_ids_of(db: Connection, user_id: str) -> list[ThirdPartyId]:
    """All addresses of a user, oldest first."""
    async with db.cursor(row_factory=class_row(ThirdPartyId)) as cursor:
        await cursor.execute(
            """
            SELECT medium, address, user_id, validated_ms, added_ms
              FROM third_party_ids
             WHERE user_id = %s
             ORDER BY added_ms, medium, address
            """,
            (user_id,),
        )
        return await cursor.fetchall()


async def delete_third_party_id(db: Connection, user_id: str, medium: str, address: str) -> bool:
    """Remove an address from a user; false if they do not have it."""
    cursor = await db.execute(
        "DELETE FROM third_party_ids WHERE user_id = %s AND medium = %s AND address = %s",
        (user_id, medium, address),
    )
    return cursor.rowcount == 1


async def delete_third_party_ids_of(db: Connection, user_id: str) -> None:
    """Remove all addresses from a user."""
    await db.execute("DELETE FROM third_party_ids WHERE user_id = %s", (user_id,))
