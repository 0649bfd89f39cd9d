"""State nodes: the nodes of all rooms' state trees, and the progress of their garbage collection.

Owns the tables `state_nodes`, `state_sweep` and `state_marks` (migrations/0003_state_nodes.sql and
0015_state_sweep.sql). A node is one row, found by the hash of its content.
`homeserver/rooms/state/garbage_collection.py` explains the collection, and why no state loses a
node by it.
"""

from collections.abc import Collection

import msgspec
from psycopg.errors import LockNotAvailable
from psycopg.rows import class_row

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

LOCK_MS = 2_000  # for which writers of nodes may have to wait for a new generation

# Sorted, so that two processes that add the same nodes never deadlock. A node that exists already
# is moved to the present generation, so that it is not collected.
INSERT_STATE_NODE = BatchStatement(
    "insert_state_node",
    """
    INSERT INTO state_nodes (hash, node, generation)
    SELECT hash, node, (SELECT generation FROM state_sweep)
      FROM unnest(%s::bytea[], %s::bytea[]) AS new (hash, node)
     ORDER BY hash
        ON CONFLICT (hash) DO UPDATE
       SET generation = EXCLUDED.generation
     WHERE state_nodes.generation < EXCLUDED.generation
    """,
    columns=("bytea", "bytea"),
    key=(0,),
)


class CollectionProgress(msgspec.Struct):
    """The progress of the garbage collection of a generation; the fields are the columns of its
    row.

    `is_due` is true if the last collection began 20 hours ago or longer.
    """

    generation: int
    phase: str
    event: int
    room: int
    position: int
    hash: bytes
    pending: list[bytes]
    marked: int
    removed: int
    is_due: bool


async def state_nodes(db: Connection, hashes: Collection[bytes]) -> dict[bytes, bytes]:
    """The nodes with these hashes; those that are not stored are left out."""
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            "SELECT hash, node FROM state_nodes WHERE hash = ANY(%b)", (list(hashes),), prepare=True
        )
        return dict(await cursor.fetchall())


async def lock_collection(db: Connection) -> CollectionProgress:
    """The progress, locked until the transaction ends; waits for another holder."""
    async with db.cursor(row_factory=class_row(CollectionProgress), binary=True) as cursor:
        await cursor.execute(
            """
            SELECT generation, phase, event, room, position, hash, pending, marked, removed,
                   began < now() - interval '20 hours' AS is_due
              FROM state_sweep
               FOR UPDATE
            """
        )
        progress = await cursor.fetchone()
    assert progress is not None, "the migration inserts the row"
    return progress


async def begin_generation(db: Connection) -> bool:
    """Begin a new generation and its garbage collection, in a transaction that holds the lock.

    When this is committed, all transactions that wrote nodes in the old generation have ended, and
    later ones write in the new one. `False`, and nothing has begun, if a transaction has been
    writing nodes for too long.
    """
    try:
        async with db.transaction():
            await db.execute(f"SET LOCAL lock_timeout = {LOCK_MS}")
            await db.execute("LOCK TABLE state_nodes IN SHARE ROW EXCLUSIVE MODE")
    except LockNotAvailable:
        return False
    await db.execute("TRUNCATE state_marks")
    await db.execute(
        """
        UPDATE state_sweep
           SET generation = generation + 1, phase = 'events', event = 0, room = 0, position = 0,
               hash = '', pending = '{}', marked = 0, removed = 0, began = now()
        """
    )
    return True


async def save_collection(db: Connection, progress: CollectionProgress) -> None:
    """Store the progress, in the transaction that did the work."""
    await db.execute(
        """
        UPDATE state_sweep
           SET phase = %s, event = %s, room = %s, position = %s, hash = %b, pending = %b,
               marked = %s, removed = %s
        """,
        (
            progress.phase,
            progress.event,
            progress.room,
            progress.position,
            progress.hash,
            progress.pending,
            progress.marked,
            progress.removed,
        ),
    )


async def mark_nodes(db: Connection, hashes: Collection[bytes]) -> list[bytes]:
    """Mark nodes as parts of a state; returns those that were not marked before."""
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            INSERT INTO state_marks (hash)
            SELECT * FROM unnest(%b::bytea[])
                ON CONFLICT DO NOTHING
            RETURNING hash
            """,
            (list(hashes),),
        )
        return [row[0] for row in await cursor.fetchall()]


async def delete_unmarked(
    db: Connection, after: bytes, generation: int, limit: int
) -> tuple[bytes | None, int]:
    """Examine the next nodes in the order of hashes, and delete those that belong to no state.

    Those are not marked, and were last written before the generation. Returns the last hash that
    was examined, `None` at the end, and the number of deleted nodes. Rows are locked in the order
    in which `INSERT_STATE_NODE` locks them.
    """
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            WITH page AS MATERIALIZED (
                SELECT hash FROM state_nodes WHERE hash > %b ORDER BY hash LIMIT %s
            ), garbage AS MATERIALIZED (
                SELECT node.hash
                  FROM state_nodes AS node
                  JOIN page ON page.hash = node.hash
                 WHERE node.generation < %s
                   AND NOT EXISTS (SELECT FROM state_marks WHERE state_marks.hash = node.hash)
                 ORDER BY node.hash
                   FOR UPDATE OF node
            ), gone AS (
                DELETE FROM state_nodes
                 USING garbage
                 WHERE state_nodes.hash = garbage.hash
                RETURNING 1
            )
            SELECT (SELECT hash FROM page ORDER BY hash DESC LIMIT 1), (SELECT count(*) FROM gone)
            """,
            (after, limit, generation),
        )
        row = await cursor.fetchone()
    assert row is not None, "a SELECT without FROM has one row"
    return row[0], row[1]


async def forget_marks(db: Connection) -> None:
    """Delete all marks."""
    await db.execute("TRUNCATE state_marks")
