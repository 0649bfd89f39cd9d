"""One-time keys and fallback keys of the devices of local users.

Owns the tables `one_time_keys` and `fallback_keys` (migrations/0027_encryption.sql).
"""

from collections.abc import Sequence
from typing import NamedTuple

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

INSERT_ONE_TIME_KEY = BatchStatement(
    "insert_one_time_key",
    """
    INSERT INTO one_time_keys (user_id, device_id, algorithm, position, key_id, key)
    SELECT uploaded.*
      FROM unnest(%s::text[], %s::text[], %s::text[], %s::int8[], %s::text[], %s::bytea[])
           AS uploaded (user_id, device_id, algorithm, position, key_id, key)
      JOIN devices USING (user_id, device_id)
        ON CONFLICT DO NOTHING
    """,
    columns=("text", "text", "text", "int8", "text", "bytea"),
)

SET_FALLBACK_KEY = BatchStatement(
    "set_fallback_key",
    """
    INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, key, used)
    SELECT uploaded.*, false
      FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[])
           AS uploaded (user_id, device_id, algorithm, key_id, key)
      JOIN devices USING (user_id, device_id)
     ORDER BY 1, 2, 3
        ON CONFLICT (user_id, device_id, algorithm) DO UPDATE
       SET key_id = EXCLUDED.key_id, key = EXCLUDED.key, used = false
     WHERE fallback_keys.key_id <> EXCLUDED.key_id OR fallback_keys.key <> EXCLUDED.key
    """,
    columns=("text", "text", "text", "text", "bytea"),
    key=(0, 1, 2),
)

# Late: keys that are uploaded in the commit that deletes the device are deleted with it.
DELETE_ONE_TIME_KEYS = BatchStatement(
    "delete_one_time_keys",
    """
    DELETE FROM one_time_keys
     USING unnest(%s::text[], %s::text[]) AS gone (user_id, device_id)
     WHERE one_time_keys.user_id = gone.user_id AND one_time_keys.device_id = gone.device_id
    """,
    columns=("text", "text"),
    key=(0, 1),
    late=True,
)

DELETE_FALLBACK_KEYS = BatchStatement(
    "delete_fallback_keys",
    """
    DELETE FROM fallback_keys
     USING unnest(%s::text[], %s::text[]) AS gone (user_id, device_id)
     WHERE fallback_keys.user_id = gone.user_id AND fallback_keys.device_id = gone.device_id
    """,
    columns=("text", "text"),
    key=(0, 1),
    late=True,
)


class WantedKey(NamedTuple):
    """A claim: a key of this algorithm of a device."""

    user_id: str
    device_id: str
    algorithm: str


class ClaimedKey(NamedTuple):
    """A key that was claimed; `place` is that of its claim among those of the statement, from 1."""

    place: int
    key_id: str
    key: bytes


class LeftKeys(NamedTuple):
    """The number of one-time keys of an algorithm, or 0 and whether its fallback key was used."""

    algorithm: str
    number: int
    is_fallback: bool
    used: bool


async def find_one_time_keys(
    db: Connection, user_id: str, device_id: str, key_ids: Sequence[str]
) -> dict[tuple[str, str], bytes]:
    """The one-time keys of a device with some ids, by algorithm and key id."""
    cursor = await db.execute(
        """
        SELECT algorithm, key_id, key
          FROM one_time_keys
         WHERE user_id = %s AND device_id = %s AND key_id = ANY(%s)
        """,
        (user_id, device_id, list(key_ids)),
    )
    return {(algorithm, key_id): key for algorithm, key_id, key in await cursor.fetchall()}


async def key_counts(db: Connection, user_id: str, device_id: str) -> list[LeftKeys]:
    """What is left of a device's keys, for each algorithm that has any."""
    cursor = await db.execute(
        """
        SELECT algorithm, count(*), false, false
          FROM one_time_keys
         WHERE user_id = %(user)s AND device_id = %(device)s
         GROUP BY algorithm
         UNION ALL
        SELECT algorithm, 0, true, used
          FROM fallback_keys
         WHERE user_id = %(user)s AND device_id = %(device)s
         ORDER BY 1
        """,
        {"user": user_id, "device": device_id},
    )
    return [LeftKeys(*row) for row in await cursor.fetchall()]


async def take_one_time_keys(
    db: Connection, wanted: Sequence[WantedKey], upto: int
) -> list[ClaimedKey]:
    """Delete the oldest key for each claim, and return it; claims without a key are left out.

    Several claims of one device get different keys. Two of these statements must not run at once.
    Keys above the position `upto` are left: the outcome of their batch may still be unknown, and
    its second attempt would bring them back.
    """
    cursor = await db.execute(
        """
        WITH wanted AS (
                 SELECT user_id, device_id, algorithm, place,
                        row_number() OVER (
                            PARTITION BY user_id, device_id, algorithm ORDER BY place) AS turn
                   FROM unnest(%s::text[], %s::text[], %s::text[])
                        WITH ORDINALITY AS claims (user_id, device_id, algorithm, place)),
             chosen AS (
                 SELECT wanted.user_id, wanted.device_id, wanted.algorithm, place,
                        oldest.position, oldest.key_id
                   FROM wanted, LATERAL (
                            SELECT position, key_id
                              FROM one_time_keys
                             WHERE one_time_keys.user_id = wanted.user_id
                               AND one_time_keys.device_id = wanted.device_id
                               AND one_time_keys.algorithm = wanted.algorithm
                               AND position <= %s
                             ORDER BY position, key_id
                            OFFSET turn - 1 LIMIT 1) AS oldest)
        DELETE FROM one_time_keys USING chosen
         WHERE one_time_keys.user_id = chosen.user_id
           AND one_time_keys.device_id = chosen.device_id
           AND one_time_keys.algorithm = chosen.algorithm
           AND one_time_keys.position = chosen.position
           AND one_time_keys.key_id = chosen.key_id
        RETURNING place, one_time_keys.key_id, key
        """,
        [*_columns(wanted), upto],
    )
    return [ClaimedKey(*row) for row in await cursor.fetchall()]


async def use_fallback_keys(db: Connection, wanted: Sequence[WantedKey]) -> list[ClaimedKey]:
    """Mark the fallback key for each claim as used, and return it; claims without are left out."""
    cursor = await db.execute(
        """
        WITH wanted AS (
                 SELECT *
                   FROM unnest(%s::text[], %s::text[], %s::text[])
                        WITH ORDINALITY AS claims (user_id, device_id, algorithm, place)),
             used AS (
                 UPDATE fallback_keys SET used = true
                   FROM (SELECT DISTINCT user_id, device_id, algorithm FROM wanted) AS claimed
                  WHERE fallback_keys.user_id = claimed.user_id
                    AND fallback_keys.device_id = claimed.device_id
                    AND fallback_keys.algorithm = claimed.algorithm AND NOT used)
        SELECT place, key_id, key
          FROM wanted JOIN fallback_keys USING (user_id, device_id, algorithm)
        """,
        _columns(wanted),
    )
    return [ClaimedKey(*row) for row in await cursor.fetchall()]


def _columns(wanted: Sequence[WantedKey]) -> list[list[str]]:
    return [
        [each.user_id for each in wanted],
        [each.device_id for each in wanted],
        [each.algorithm for each in wanted],
    ]
