"""State nodes: the pieces that all rooms' state trees are made of.

Owns the table `state_nodes` (migrations/0003_state_nodes.sql), which has one row for each distinct
node, found by the hash of its content. No other module names that table.
"""

from collections.abc import Collection

from homeserver.storage.batch import BatchStatement
from homeserver.storage.database import Connection

# Sorted, so that two processes that add the same nodes never wait for each other in a circle.
INSERT_STATE_NODE = BatchStatement(
    "insert_state_node",
    """
    INSERT INTO state_nodes (hash, node)
    SELECT * FROM unnest(%s::bytea[], %s::bytea[]) ORDER BY 1
        ON CONFLICT DO NOTHING
    """,
    columns=("bytea", "bytea"),
    key=(0,),
)


async def state_nodes(db: Connection, hashes: Collection[bytes]) -> dict[bytes, bytes]:
    """The nodes with these hashes; those that are not stored are left out."""
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            "SELECT hash, node FROM state_nodes WHERE hash = ANY(%b)", (list(hashes),), prepare=True
        )
        return dict(await cursor.fetchall())
