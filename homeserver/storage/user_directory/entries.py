"""The entries of the user directory, and the index by which they are found.

Owns the tables `user_directory_entries` and `user_directory_keys`
(migrations/0035_user_directory.sql). An entry says what a user is called within a scope: a room by
its nid, or one of the scopes below. The entries follow from rooms and profiles, so they are not
written through the log; one caller writes them at a time.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection

EVERYBODY: Final = 0  # the scope of the members of all rooms that everybody may see
LOCAL_USERS: Final = -1  # the scope of all users of this server
LAST: Final = "\U0010ffff"  # it sorts after all characters of keys


class DirectoryEntry(msgspec.Struct, frozen=True):
    """What a user is called within a scope. `member` is their nid.

    `keys` has a line feed before each of them.
    """

    scope: int
    member: int
    display_name: str | None
    avatar_url: str | None
    keys: str


class WantedKeys(msgspec.Struct, frozen=True):
    """The keys that begin with one of `starts`, at most `per_scope` for each scope and start.

    No more than `in_all` are read. Where `words` are given, each of them has to begin a key of the
    entry.
    """

    starts: Sequence[str]
    per_scope: int
    in_all: int
    words: Sequence[str] = ()


class Candidate(msgspec.Struct, frozen=True):
    """An entry that a search found; `scope` is a room where the user is in one of those searched"""

    scope: int
    user_id: str
    display_name: str | None
    avatar_url: str | None


async def find_candidates(
    db: Connection, scopes: Sequence[int], keys: WantedKeys, searcher: int, limit: int
) -> list[Candidate]:
    """Users who are found within the scopes, each once.

    Where there are more than the limit, those whose key is the first one, or who are in a room, are
    preferred. The searcher is not found in rooms of their own. Deactivated and locked users are
    left out, and so is the one that sends server notices.
    """
    async with db.cursor(row_factory=class_row(Candidate)) as cursor:
        await cursor.execute(
            r"""
              WITH found AS (
                    SELECT searched.scope, near.member, near.key
                      FROM unnest(%(scopes)s::int4[]) AS searched (scope)
                     CROSS JOIN unnest(%(starts)s::text[]) AS wanted (start)
                     CROSS JOIN LATERAL (
                           SELECT member, key
                             FROM user_directory_keys
                            WHERE scope = searched.scope
                              AND key BETWEEN wanted.start AND wanted.start || %(last)s
                            ORDER BY key
                            LIMIT %(per_scope)s) AS near
                     LIMIT %(in_all)s),
                   nearest AS (
                    SELECT DISTINCT ON (member) member, scope, key
                      FROM found
                     WHERE (member <> %(searcher)s OR scope <= 0)
                       AND (cardinality(%(words)s::text[]) = 0 OR (
                            SELECT bool_and(strpos(entry.keys, E'\n' || word) > 0
                                            OR strpos(entry.keys, E'\n^' || word) > 0
                                            OR strpos(entry.keys, E'\n@' || word) > 0)
                              FROM user_directory_entries AS entry, unnest(%(words)s) AS word
                             WHERE entry.scope = found.scope AND entry.member = found.member))
                     ORDER BY member, scope > 0 DESC, key, scope),
                   best AS (
                    SELECT member, scope
                      FROM nearest
                     ORDER BY key = ANY(%(starts)s) DESC, scope > 0 DESC, key, member
                     LIMIT %(limit)s)
            SELECT best.scope, names.name AS user_id, entry.display_name, entry.avatar_url
              FROM best
              JOIN user_directory_entries AS entry USING (scope, member)
              JOIN names ON names.nid = best.member
              LEFT JOIN users ON users.user_id = names.name COLLATE "default"
             WHERE NOT COALESCE(users.is_deactivated OR users.is_locked
                                OR users.user_type = 'server_notices', false)
            """,
            {
                "scopes": list(scopes),
                "starts": list(keys.starts),
                "last": LAST,
                "per_scope": keys.per_scope,
                "in_all": keys.in_all,
                "words": list(keys.words),
                "searcher": searcher,
                "limit": limit,
            },
        )
        return await cursor.fetchall()


async def entries_of(
    db: Connection, scopes: Sequence[int], members: Sequence[int]
) -> list[DirectoryEntry]:
    """The entries of these users within these scopes."""
    async with db.cursor(row_factory=class_row(DirectoryEntry)) as cursor:
        await cursor.execute(
            """
            SELECT scope, member, display_name, avatar_url, keys
              FROM user_directory_entries
             WHERE scope = ANY(%s) AND member = ANY(%s)
            """,
            (list(scopes), list(members)),
        )
        return await cursor.fetchall()


async def members_within(db: Connection, scope: int) -> list[int]:
    """The users who have an entry within a scope."""
    cursor = await db.execute(
        "SELECT member FROM user_directory_entries WHERE scope = %s", (scope,), binary=True
    )
    return [row[0] for row in await cursor.fetchall()]


async def replace_entries(
    db: Connection, old: Sequence[DirectoryEntry], new: Sequence[DirectoryEntry]
) -> None:
    """Replace entries by others, within a transaction."""
    before = {row for entry in old for row in _key_rows(entry)}
    after = {row for entry in new for row in _key_rows(entry)}
    await _delete_keys(db, sorted(before - after))
    remaining = {(entry.scope, entry.member) for entry in new}
    removed = [entry for entry in old if (entry.scope, entry.member) not in remaining]
    await db.execute(
        """
        DELETE FROM user_directory_entries AS entry
         USING unnest(%s::int4[], %s::int4[]) AS removed (scope, member)
         WHERE entry.scope = removed.scope AND entry.member = removed.member
        """,
        ([entry.scope for entry in removed], [entry.member for entry in removed]),
    )
    await db.execute(
        """
        INSERT INTO user_directory_entries (scope, member, display_name, avatar_url, keys)
        SELECT * FROM unnest(%s::int4[], %s::int4[], %s::text[], %s::text[], %s::text[])
            ON CONFLICT (scope, member) DO UPDATE
           SET display_name = EXCLUDED.display_name, avatar_url = EXCLUDED.avatar_url,
               keys = EXCLUDED.keys
        """,
        (
            [entry.scope for entry in new],
            [entry.member for entry in new],
            [entry.display_name for entry in new],
            [entry.avatar_url for entry in new],
            [entry.keys for entry in new],
        ),
    )
    await _insert_keys(db, sorted(after - before))


def _key_rows(entry: DirectoryEntry) -> list[tuple[int, str, int]]:
    return [(entry.scope, key, entry.member) for key in entry.keys.split("\n")[1:]]


async def _delete_keys(db: Connection, keys: Sequence[tuple[int, str, int]]) -> None:
    if keys:
        await db.execute(
            """
            DELETE FROM user_directory_keys AS known
             USING unnest(%s::int4[], %s::text[], %s::int4[]) AS removed (scope, key, member)
             WHERE known.scope = removed.scope AND known.key = removed.key
               AND known.member = removed.member
            """,
            tuple(map(list, zip(*keys, strict=True))),
        )


async def _insert_keys(db: Connection, keys: Sequence[tuple[int, str, int]]) -> None:
    if keys:
        await db.execute(
            """
            INSERT INTO user_directory_keys (scope, key, member)
            SELECT * FROM unnest(%s::int4[], %s::text[], %s::int4[])
                ON CONFLICT DO NOTHING
            """,
            tuple(map(list, zip(*keys, strict=True))),
        )
