"""Media: what is known of each `mxc://` URI, and how much each user has stored.

Owns the tables `media`, `media_usage` and `quarantined_content` (migrations/0032_media.sql). Files
are stored by `homeserver/media/files`, under the hash of their content.

Each statement can be repeated: a file is added once, and counted once.
"""

from collections.abc import Sequence

import msgspec
from psycopg.rows import class_row

from homeserver.protocol.media.media_ids import MediaId
from homeserver.storage.database.database import Connection


class NewMedia(msgspec.Struct, frozen=True):
    """A file to add; times are in ms. `uploader` is `None` for one of another server."""

    name: MediaId
    uploader: str | None
    created_at: int
    sha256: bytes
    size: int
    content_type: str
    filename: str | None
    is_public: bool


class Media(msgspec.Struct, frozen=True):
    """A known file. Without a `sha256` it has not been uploaded (yet)."""

    uploader: str | None
    created_at: int
    expires_at: int | None
    used_at: int
    sha256: bytes | None
    size: int | None
    content_type: str | None
    filename: str | None
    is_public: bool
    is_quarantined: bool


class MediaUsage(msgspec.Struct, frozen=True):
    """The number and the bytes of files."""

    files: int
    bytes: int


MAX_BIGINT = 2**63 - 1

_COUNT_ADDED = """
    INSERT INTO media_usage AS known (uploader, files, bytes)
    SELECT uploader, count(*), sum(size) FROM added WHERE uploader IS NOT NULL GROUP BY uploader
        ON CONFLICT (uploader) DO UPDATE
       SET files = known.files + excluded.files, bytes = known.bytes + excluded.bytes
"""
_COUNT_DELETED = """
    UPDATE media_usage AS known
       SET files = known.files - gone.files, bytes = known.bytes - gone.bytes
      FROM (SELECT uploader, count(*) AS files, sum(size) AS bytes
              FROM deleted WHERE uploader IS NOT NULL AND sha256 IS NOT NULL
             GROUP BY uploader) AS gone
     WHERE known.uploader = gone.uploader
"""


async def find_media(db: Connection, name: MediaId) -> Media | None:
    """What is known of a file; it is quarantined if it or its content is."""
    async with db.cursor(row_factory=class_row(Media)) as cursor:
        await cursor.execute(
            """
            SELECT uploader, created_at, expires_at, used_at, sha256, size, content_type, filename,
                   is_public,
                   is_quarantined OR EXISTS (
                       SELECT FROM quarantined_content AS bad WHERE bad.sha256 = media.sha256
                   ) AS is_quarantined
              FROM media
             WHERE server_name = %s AND media_id = %s
            """,
            (name.server_name, name.media_id),
        )
        return await cursor.fetchone()


async def add_media(db: Connection, new: NewMedia) -> None:
    """Add a file; of a file of another server that is known already, only its content is new."""
    await db.execute(
        f"""
        WITH added AS (
            INSERT INTO media AS known (server_name, media_id, uploader, created_at, used_at,
                                        sha256, size, content_type, filename, is_public)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
                ON CONFLICT (server_name, media_id) DO UPDATE
               SET sha256 = excluded.sha256, size = excluded.size, used_at = excluded.used_at,
                   content_type = excluded.content_type, filename = excluded.filename,
                   is_public = excluded.is_public
             WHERE known.uploader IS NULL
            RETURNING uploader, size
        )
        {_COUNT_ADDED}
        """,
        (
            new.name.server_name,
            new.name.media_id,
            new.uploader,
            new.created_at,
            new.created_at,
            new.sha256,
            new.size,
            new.content_type,
            new.filename,
            new.is_public,
        ),
    )


async def reserve_media_id(
    db: Connection, name: MediaId, uploader: str, now: int, expires_at: int, most: int
) -> bool:
    """Add a file that will be uploaded until `expires_at`; false if the user has `most` of them.

    Times are in ms. Concurrent calls for one user may exceed the number together; the caller makes
    them one after the other.
    """
    cursor = await db.execute(
        """
        INSERT INTO media (server_name, media_id, uploader, created_at, expires_at, used_at,
                           is_public)
        SELECT %(server)s, %(id)s, %(user)s, %(now)s, %(until)s, %(now)s, false
         WHERE %(most)s > (
               SELECT count(*) FROM media
                WHERE uploader = %(user)s AND expires_at > %(now)s)
        """,
        {
            "server": name.server_name,
            "id": name.media_id,
            "user": uploader,
            "now": now,
            "until": expires_at,
            "most": most,
        },
    )
    return cursor.rowcount > 0


async def complete_media(db: Connection, new: NewMedia) -> bool:
    """Add the content of a file that was reserved; false if it has one, or is not there any more.

    A second call with the same content changes nothing, and returns true.
    """
    cursor = await db.execute(
        f"""
        WITH added AS (
            UPDATE media
               SET sha256 = %s, size = %s, content_type = %s, filename = %s, is_public = %s,
                   expires_at = NULL, used_at = %s
             WHERE server_name = %s AND media_id = %s AND uploader = %s AND sha256 IS NULL
            RETURNING uploader, size
        ),
        counted AS ({_COUNT_ADDED})
        SELECT FROM added
        UNION ALL
        SELECT FROM media WHERE server_name = %s AND media_id = %s AND sha256 = %s
        """,
        (
            new.sha256,
            new.size,
            new.content_type,
            new.filename,
            new.is_public,
            new.created_at,
            new.name.server_name,
            new.name.media_id,
            new.uploader,
            new.name.server_name,
            new.name.media_id,
            new.sha256,
        ),
    )
    return cursor.rowcount > 0


async def usage_of(db: Connection, uploader: str) -> MediaUsage:
    """What a user has stored."""
    async with db.cursor(row_factory=class_row(MediaUsage)) as cursor:
        await cursor.execute(
            "SELECT files, bytes FROM media_usage WHERE uploader = %s", (uploader,)
        )
        return await cursor.fetchone() or MediaUsage(0, 0)


async def mark_used(db: Connection, name: MediaId, now: int) -> None:
    """Record that a file was used at `now` (ms)."""
    await db.execute(
        "UPDATE media SET used_at = %s WHERE server_name = %s AND media_id = %s AND used_at < %s",
        (now, name.server_name, name.media_id, now),
    )


async def contents_of_media(db: Connection, hashes: Sequence[bytes]) -> set[bytes]:
    """Those of some contents that a file names."""
    cursor = await db.execute(
        """
        SELECT wanted.sha256
          FROM unnest(%s::bytea[]) AS wanted (sha256)
         WHERE EXISTS (SELECT FROM media WHERE media.sha256 = wanted.sha256)
        """,
        (list(hashes),),
    )
    return {bytes(sha256) for (sha256,) in await cursor.fetchall()}


async def media_of(db: Connection, uploader: str, after: str, most: int) -> list[str]:
    """The IDs of a user's files in their order, `most` at a time, after the one given."""
    cursor = await db.execute(
        """
        SELECT media_id FROM media
         WHERE uploader = %s AND media_id > %s
         ORDER BY media_id
         LIMIT %s
        """,
        (uploader, after, most),
    )
    return [media_id for (media_id,) in await cursor.fetchall()]


async def largest_usage(db: Connection, most: int) -> list[tuple[str, MediaUsage]]:
    """The users who have stored most bytes."""
    cursor = await db.execute(
        """
        SELECT uploader, files, bytes FROM media_usage
         WHERE files > 0
         ORDER BY bytes DESC, uploader
         LIMIT %s
        """,
        (most,),
    )
    rows = await cursor.fetchall()
    return [(uploader, MediaUsage(files, size)) for uploader, files, size in rows]


async def remote_usage(db: Connection) -> MediaUsage:
    """The cached files of other servers."""
    cursor = await db.execute(
        """
        SELECT count(*), coalesce(sum(size), 0)::bigint FROM media
         WHERE uploader IS NULL AND sha256 IS NOT NULL
        """
    )
    row = await cursor.fetchone()
    assert row is not None, "an aggregate has one row"
    return MediaUsage(*row)


async def delete_media(db: Connection, name: MediaId) -> tuple[bool, bytes | None]:
    """Delete a file; whether it was there, and the hash of its content.

    Other files may have the same content.
    """
    cursor = await db.execute(
        f"""
        WITH deleted AS (
            DELETE FROM media WHERE server_name = %s AND media_id = %s
            RETURNING uploader, sha256, size
        ),
        counted AS ({_COUNT_DELETED})
        SELECT sha256 FROM deleted
        """,
        (name.server_name, name.media_id),
    )
    row = await cursor.fetchone()
    if row is None:
        return False, None
    return True, None if row[0] is None else bytes(row[0])


async def delete_unused_remote(
    db: Connection, used_before: int, most: int, excess: int = MAX_BIGINT
) -> list[tuple[bytes, int]]:
    """Delete files of other servers, the least recently used ones, and at most so many.

    `used_before` is in ms; those that are left if `excess` bytes are gone stay. Returns the hashes
    and sizes of the contents of the others. Quarantined ones stay, so that they are not fetched
    again.
    """
    cursor = await db.execute(
        """
        WITH oldest AS (
            SELECT server_name, media_id, used_at, size FROM media
             WHERE uploader IS NULL AND sha256 IS NOT NULL AND used_at < %s AND NOT is_quarantined
             ORDER BY used_at
             LIMIT %s
        ),
        ranked AS (
            SELECT server_name, media_id,
                   sum(size) OVER (ORDER BY used_at, server_name, media_id) - size AS older
              FROM oldest
        )
        DELETE FROM media
         WHERE (server_name, media_id) IN (
               SELECT server_name, media_id FROM ranked WHERE older < %s)
        RETURNING sha256, size
        """,
        (used_before, most, excess),
    )
    return [(bytes(sha256), size) for sha256, size in await cursor.fetchall()]


async def delete_expired(db: Connection, expired_before: int) -> None:
    """Delete addresses whose time (ms) for an upload is over."""
    await db.execute(
        "DELETE FROM media WHERE expires_at < %s AND sha256 IS NULL", (expired_before,)
    )


async def quarantine_media(
    db: Connection, name: MediaId, now: int, *, may_be_unknown: bool
) -> bool:
    """Have a file and its content served no more; false if there is no such file.

    Of another server's file (`may_be_unknown`) that is not cached, the address is recorded.
    """
    if may_be_unknown:
        await db.execute(
            """
            INSERT INTO media (server_name, media_id, created_at, used_at, is_public)
            VALUES (%s, %s, %s, %s, false) ON CONFLICT DO NOTHING
            """,
            (name.server_name, name.media_id, now, now),
        )
    cursor = await db.execute(
        """
        WITH found AS (
            UPDATE media SET is_quarantined = true WHERE server_name = %s AND media_id = %s
            RETURNING sha256
        ),
        contents AS (
            INSERT INTO quarantined_content (sha256, quarantined_at)
            SELECT sha256, %s FROM found WHERE sha256 IS NOT NULL
                ON CONFLICT DO NOTHING
        )
        SELECT FROM found
        """,
        (name.server_name, name.media_id, now),
    )
    return cursor.rowcount > 0


async def end_quarantine(db: Connection, name: MediaId) -> bool:
    """Have a file and its content served again; false if there is no such file."""
    cursor = await db.execute(
        """
        WITH found AS (
            UPDATE media SET is_quarantined = false WHERE server_name = %s AND media_id = %s
            RETURNING sha256
        ),
        contents AS (DELETE FROM quarantined_content WHERE sha256 IN (SELECT sha256 FROM found))
        SELECT FROM found
        """,
        (name.server_name, name.media_id),
    )
    return cursor.rowcount > 0
