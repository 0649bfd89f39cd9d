"""Identity bindings: addresses of users that identity servers publish, bound through this server.

Owns the table `identity_bindings` (migrations/0014_third_party_ids.sql).

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3account3pidbind
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class IdentityBinding(msgspec.Struct, frozen=True):
    """One address as one identity server publishes it."""

    user_id: str
    medium: str
    address: str
    id_server: str


async def insert_identity_binding(db: Connection, new: IdentityBinding) -> None:
    """Store a binding."""
    await db.execute(
        """
        INSERT INTO identity_bindings (user_id, medium, address, id_server)
        VALUES (%s, %s, %s, %s)
            ON CONFLICT DO NOTHING
        """,
        (new.user_id, new.medium, new.address, new.id_server),
    )


async def identity_bindings_of(db: Connection, user_id: str) -> list[IdentityBinding]:
    """All bindings of a user."""
    async with db.cursor(row_factory=class_row(IdentityBinding)) as cursor:
        await cursor.execute(
            """
            SELECT user_id, medium, address, id_server
              FROM identity_bindings
             WHERE user_id = %s
             ORDER BY medium, address, id_server
            """,
            (user_id,),
        )
        return await cursor.fetchall()


async def delete_identity_binding(db: Connection, gone: IdentityBinding) -> None:
    """Delete a binding."""
    await db.execute(
        """
        DELETE FROM identity_bindings
         WHERE user_id = %s AND medium = %s AND address = %s AND id_server = %s
        """,
        (gone.user_id, gone.medium, gone.address, gone.id_server),
    )


async def delete_identity_bindings_of(db: Connection, user_id: str) -> None:
    """Delete all bindings of a user."""
    await db.execute("DELETE FROM identity_bindings WHERE user_id = %s", (user_id,))
