"""Thumbnails: what was made of each content.

Owns the table `thumbnails` (migrations/0032_media.sql). They belong to the content, not to a file:
two users who upload the same picture share them.
"""

from collections.abc import Sequence

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class Thumbnail(msgspec.Struct, frozen=True):
    """The content of a thumbnail; `size` is in bytes."""

    sha256: bytes
    size: int
    content_type: str


async def find_thumbnail(
    db: Connection, source: bytes, width: int, height: int, method: str, *, is_animated: bool
) -> Thumbnail | None:
    """The thumbnail of a content in this shape."""
    async with db.cursor(row_factory=class_row(Thumbnail)) as cursor:
        await cursor.execute(
            """
            SELECT sha256, size, content_type
              FROM thumbnails
             WHERE source = %s AND width = %s AND height = %s AND method = %s AND is_animated = %s
            """,
            (source, width, height, method, is_animated),
        )
        return await cursor.fetchone()


async def add_thumbnail(
    db: Connection,
    source: bytes,
    width: int,
    height: int,
    method: str,
    thumbnail: Thumbnail,
    *,
    is_animated: bool,
) -> None:
    """Add a thumbnail."""
    await db.execute(
        """
        INSERT INTO thumbnails (source, width, height, method, is_animated, sha256, size,
                                content_type)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
        """,
        (
            source,
            width,
            height,
            method,
            is_animated,
            thumbnail.sha256,
            thumbnail.size,
            thumbnail.content_type,
        ),
    )


async def delete_thumbnails(db: Connection, source: bytes) -> set[bytes]:
    """Delete all thumbnails of a content, and return the hashes of theirs."""
    cursor = await db.execute(
        "DELETE FROM thumbnails WHERE source = %s RETURNING sha256", (source,)
    )
    return {bytes(sha256) for (sha256,) in await cursor.fetchall()}


async def contents_of_thumbnails(db: Connection, hashes: Sequence[bytes]) -> set[bytes]:
    """Those of some contents that are thumbnails."""
    cursor = await db.execute(
        """
        SELECT wanted.sha256
          FROM unnest(%s::bytea[]) AS wanted (sha256)
         WHERE EXISTS (SELECT FROM thumbnails WHERE thumbnails.sha256 = wanted.sha256)
        """,
        (list(hashes),),
    )
    return {bytes(sha256) for (sha256,) in await cursor.fetchall()}


async def sources_after(db: Connection, after: bytes, most: int) -> list[bytes]:
    """The contents that have thumbnails, in their order, `most` at a time."""
    cursor = await db.execute(
        "SELECT DISTINCT source FROM thumbnails WHERE source > %s ORDER BY source LIMIT %s",
        (after, most),
    )
    return [bytes(source) for (source,) in await cursor.fetchall()]
