"""Backed up keys: the encrypted room keys of all key backups.

Owns the table `backed_up_keys` (migrations/0028_key_backups.sql), which has one row for each key
set, room and session. A key set is all that one version of a backup contains.
"""

from collections.abc import Collection, Sequence

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection

FIRST = ("", "")  # a place before all keys

Place = tuple[str, str]  # a room id and a session id: the order of the keys of a set


class BackedUpKey(msgspec.Struct, frozen=True):
    """One key; `session_data` is JSON, as it was uploaded."""

    room_id: str
    session_id: str
    first_message_index: int
    forwarded_count: int
    is_verified: bool
    session_data: bytes

    @property
    def place(self) -> Place:
        return self.room_id, self.session_id

    @property
    def size(self) -> int:
        """The bytes that a backup counts for it."""
        ids = len(self.room_id.encode()) + len(self.session_id.encode())
        return ids + len(self.session_data)


class StoredMetadata(msgspec.Struct, frozen=True):
    """All of a stored key but its data, of which `size` has the bytes, with those of the ids."""

    room_id: str
    session_id: str
    first_message_index: int
    forwarded_count: int
    is_verified: bool
    size: int


_SIZE = "octet_length(session_data) + octet_length(room_id) + octet_length(session_id)"


async def metadata_of_keys(
    db: Connection, key_set: int, places: Collection[Place]
) -> list[StoredMetadata]:
    """The metadata of those of some keys that a key set has."""
    async with db.cursor(row_factory=class_row(StoredMetadata)) as cursor:
        await cursor.execute(
            f"""
            SELECT room_id, session_id, first_message_index, forwarded_count, is_verified,
                   {_SIZE} AS size
              FROM unnest(%s::text[], %s::text[]) AS wanted (room_id, session_id)
              JOIN backed_up_keys USING (room_id, session_id)
             WHERE key_set = %s
            """,
            ([room for room, _ in places], [session for _, session in places], key_set),
        )
        return await cursor.fetchall()


async def store_keys(db: Connection, key_set: int, keys: Sequence[BackedUpKey]) -> None:
    """Add keys to a key set, or replace those that it has."""
    await db.execute(
        """
        INSERT INTO backed_up_keys (key_set, room_id, session_id, first_message_index,
                                    forwarded_count, is_verified, session_data)
        SELECT %s, *
          FROM unnest(%s::text[], %s::text[], %s::int8[], %s::int8[], %s::bool[], %s::bytea[])
            ON CONFLICT (key_set, room_id, session_id) DO UPDATE
           SET first_message_index = EXCLUDED.first_message_index,
               forwarded_count = EXCLUDED.forwarded_count,
               is_verified = EXCLUDED.is_verified,
               session_data = EXCLUDED.session_data
        """,
        (
            key_set,
            [key.room_id for key in keys],
            [key.session_id for key in keys],
            [key.first_message_index for key in keys],
            [key.forwarded_count for key in keys],
            [key.is_verified for key in keys],
            [key.session_data for key in keys],
        ),
    )


async def find_key(db: Connection, key_set: int, place: Place) -> BackedUpKey | None:
    """One key of a key set."""
    async with db.cursor(row_factory=class_row(BackedUpKey), binary=True) as cursor:
        await cursor.execute(
            """
            SELECT room_id, session_id, first_message_index, forwarded_count, is_verified,
                   session_data
              FROM backed_up_keys
             WHERE key_set = %s AND room_id = %s AND session_id = %s
            """,
            (key_set, *place),
        )
        return await cursor.fetchone()


async def page_of_keys(
    db: Connection, key_set: int, room_id: str | None, after: Place, most: int, size: int
) -> list[BackedUpKey]:
    """The keys after a place, of one room or of all: at most `most`, in about `size` bytes.

    Empty only if there are no more.
    """
    # A condition that is always there would have the scan pass all keys behind those of the room.
    in_room = "" if room_id is None else "AND room_id = %s"
    async with db.cursor(row_factory=class_row(BackedUpKey), binary=True) as cursor:
        # The length of a value is known without reading it, wherever it is stored.
        await cursor.execute(
            f"""
            SELECT room_id, session_id, first_message_index, forwarded_count, is_verified,
                   session_data
              FROM (SELECT *, sum({_SIZE}) OVER (ORDER BY room_id, session_id) - {_SIZE} AS before
                      FROM (SELECT *
                              FROM backed_up_keys
                             WHERE key_set = %s AND (room_id, session_id) > (%s, %s) {in_room}
                             ORDER BY room_id, session_id
                             LIMIT %s) AS page
                   ) AS measured
             WHERE before < %s
             ORDER BY room_id, session_id
            """,
            (key_set, *after, *(() if room_id is None else (room_id,)), most, size),
        )
        return await cursor.fetchall()


async def delete_keys_of_room(db: Connection, key_set: int, room_id: str) -> tuple[int, int]:
    """Delete the keys of a room; returns how many there were, and their bytes."""
    cursor = await db.execute(
        f"""
        WITH deleted AS (
            DELETE FROM backed_up_keys WHERE key_set = %s AND room_id = %s
            RETURNING {_SIZE} AS size
        )
        SELECT count(*), coalesce(sum(size), 0) FROM deleted
        """,
        (key_set, room_id),
    )
    row = await cursor.fetchone()
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


async def delete_key(db: Connection, key_set: int, place: Place) -> tuple[int, int]:
    """Delete one key; returns how many there were, 0 or 1, and their bytes."""
    cursor = await db.execute(
        f"""
        DELETE FROM backed_up_keys WHERE key_set = %s AND room_id = %s AND session_id = %s
        RETURNING {_SIZE}
        """,
        (key_set, *place),
    )
    row = await cursor.fetchone()
    return (0, 0) if row is None else (1, int(row[0]))


async def delete_slice(db: Connection, key_set: int, after: Place, most: int) -> Place | None:
    """Delete the first `most` keys after a place; returns the last one's place, `None` at the end.

    From a place on, rather than the first of all: the scan need not pass the rows that were deleted
    before.
    """
    cursor = await db.execute(
        """
        WITH slice AS MATERIALIZED (
            SELECT room_id, session_id
              FROM backed_up_keys
             WHERE key_set = %s AND (room_id, session_id) > (%s, %s)
             ORDER BY room_id, session_id
             LIMIT %s
        ), deleted AS (
            DELETE FROM backed_up_keys AS stored
             USING slice
             WHERE stored.key_set = %s
               AND stored.room_id = slice.room_id AND stored.session_id = slice.session_id
        )
        SELECT room_id, session_id FROM slice ORDER BY room_id DESC, session_id DESC LIMIT 1
        """,
        (key_set, *after, most, key_set),
    )
    row = await cursor.fetchone()
    return None if row is None else (str(row[0]), str(row[1]))
