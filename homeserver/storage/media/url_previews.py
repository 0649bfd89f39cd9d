"""URL previews: what web pages said of themselves, and when.

Owns the table `url_previews` (migrations/0034_url_previews.sql). The pictures of previews are files
of this server without an uploader, in the table `media`.
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class StoredPreview(msgspec.Struct, frozen=True):
    """A preview: a JSON object, and the media ID of the picture in it. Times are in ms."""

    fetched_at: int
    expires_at: int
    preview: bytes
    media_id: str | None


async def add_preview(db: Connection, url_hash: bytes, new: StoredPreview) -> None:
    """Add a preview."""
    await db.execute(
        """
        INSERT INTO url_previews (url_hash, fetched_at, expires_at, preview, media_id)
        VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
        """,
        (url_hash, new.fetched_at, new.expires_at, new.preview, new.media_id),
    )


async def find_preview(db: Connection, url_hash: bytes, at: int, now: int) -> StoredPreview | None:
    """The preview that was the present one `at` a time, or else the one that is so `now`."""
    async with db.cursor(row_factory=class_row(StoredPreview)) as cursor:
        await cursor.execute(
            """
            SELECT fetched_at, expires_at, preview, media_id
              FROM url_previews
             WHERE url_hash = %(url)s
               AND ((fetched_at <= %(at)s AND expires_at > %(at)s) OR expires_at > %(now)s)
             ORDER BY fetched_at <= %(at)s AND expires_at > %(at)s DESC, fetched_at DESC
             LIMIT 1
            """,
            {"url": url_hash, "at": at, "now": now},
        )
        return await cursor.fetchone()


async def count_previews(db: Connection) -> int:
    """The number of all previews."""
    cursor = await db.execute("SELECT count(*) FROM url_previews")
    row = await cursor.fetchone()
    assert row is not None, "an aggregate has one row"
    return int(row[0])


async def delete_oldest_previews(
    db: Connection, fetched_before: int, most: int
) -> list[str | None]:
    """Delete the oldest previews that were fetched before a time (ms), at most so many.

    Returns the media IDs of their pictures, `None` for each preview without one.
    """
    cursor = await db.execute(
        """
        DELETE FROM url_previews
         WHERE (url_hash, fetched_at) IN (
               SELECT url_hash, fetched_at FROM url_previews
                WHERE fetched_at < %s
                ORDER BY fetched_at
                LIMIT %s)
        RETURNING media_id
        """,
        (fetched_before, most),
    )
    return [media_id for (media_id,) in await cursor.fetchall()]
