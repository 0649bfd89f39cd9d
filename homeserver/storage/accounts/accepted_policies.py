"""Accepted policies: which version of which document a user agreed to at registration.

Owns the table `accepted_policies` (migrations/0002_accounts.sql).
"""

from collections.abc import Mapping

from homeserver.storage.database.database import Connection


async def insert_accepted_policies(
    db: Connection, user_id: str, versions: Mapping[str, str], now_ms: int
) -> None:
    """Record that a user accepted these policies: id to version."""
    await db.execute(
        """
        INSERT INTO accepted_policies (user_id, policy, version, accepted_ms)
        SELECT %s, policy, version, %s
          FROM unnest(%s::text[], %s::text[]) AS accepted (policy, version)
            ON CONFLICT DO NOTHING
        """,
        (user_id, now_ms, list(versions), list(versions.values())),
    )


async def accepted_policies(db: Connection, user_id: str) -> list[tuple[str, str]]:
    """The policies that a user accepted, as pairs of id and version."""
    cursor = await db.execute(
        "SELECT policy, version FROM accepted_policies WHERE user_id = %s ORDER BY 1, 2",
        (user_id,),
    )
    return [(str(policy), str(version)) for policy, version in await cursor.fetchall()]
