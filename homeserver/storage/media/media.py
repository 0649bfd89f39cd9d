"""Media: what is known of each `mxc://` URI, and how much each user has stored.

Owns the tables `media`, `media_usage` and `quarantined_content` (migrations/0029_media.sql). Files
are stored by `homeserver/media/files`, under the hash of their content.

Each statement can be repeated: a file is added once, and counted once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from homeserver.protocol.media.media_ids import MediaId
from homeserver.storage.database.database import Connection


@dataclass(frozen=True, slots=True)
class NewMedia:
    """A file to add; times are in ms. `uploader` is `None` for one of another server."""

    name: MediaId
    uploader: str | None
    created_at: int
    sha256: bytes
    size: int
    content_type: str
    filename: str | None
    is_public: bool


@dataclass(frozen=True, slots=True)
class Media:
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


@dataclass(frozen=True, slots=True)
class MediaUsage:
    """The number and the bytes of files."""

    files: int
    bytes: int


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


async def delete_media(db: Connection, name: MediaId) -> bytes | None:
    """Delete a file and return the hash of its content, which other files may have, too."""
    cursor = await db.execute(
        f"""
        WITH deleted AS (
            DELETE FROM media WHERE server_name = %s AND media_id = %s
            RETURNING uploader, sha256, size
        ),
        counted AS ({_COUNT_DELETED})
        SELECT sha256 FROM deleted WHERE sha256 IS NOT NULL
        """,
        (name.server_name, name.media_id),
    )
    row = await cursor.fetchone()
    return None if row is None else bytes(row[0])
