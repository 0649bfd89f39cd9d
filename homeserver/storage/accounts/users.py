"""Users: the accounts of this server.

Owns the table `users` and the sequence `generated_localparts` (migrations/0002_accounts.sql). A row
is never deleted, so a user id is never given to a second user.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection

COLUMNS = """user_id, created_ms, password_hash, is_guest, is_admin, user_type, appservice,
             is_deactivated, is_erased, is_locked, is_suspended"""


class User(msgspec.Struct, frozen=True):
    """One account. `password_hash` is `None` if the user cannot log in with a password."""

    user_id: str
    created_ms: int
    password_hash: str | None = None
    is_guest: bool = False
    is_admin: bool = False
    user_type: str | None = None
    appservice: str | None = None
    is_deactivated: bool = False
    is_erased: bool = False
    is_locked: bool = False
    is_suspended: bool = False


async def insert_user(db: Connection, user: User) -> bool:
    """Add a user; false if the user id has been used before."""
    cursor = await db.execute(
        """
        INSERT INTO users (user_id, created_ms, password_hash, is_guest, is_admin, user_type,
                           appservice)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT DO NOTHING
        """,
        (
            user.user_id,
            user.created_ms,
            user.password_hash,
            user.is_guest,
            user.is_admin,
            user.user_type,
            user.appservice,
        ),
    )
    return cursor.rowcount == 1


async def find_user(db: Connection, user_id: str) -> User | None:
    """One user."""
    async with db.cursor(row_factory=class_row(User)) as cursor:
        await cursor.execute(f"SELECT {COLUMNS} FROM users WHERE user_id = %s", (user_id,))
        return await cursor.fetchone()


async def lock_user(db: Connection, user_id: str) -> User | None:
    """One user, whom no other transaction changes or locks until the end of this one."""
    async with db.cursor(row_factory=class_row(User)) as cursor:
        await cursor.execute(
            f"SELECT {COLUMNS} FROM users WHERE user_id = %s FOR UPDATE", (user_id,)
        )
        return await cursor.fetchone()


async def all_users(db: Connection, after: str = "", limit: int = 1000) -> list[User]:
    """A page of users, sorted by id, starting after `after`."""
    async with db.cursor(row_factory=class_row(User)) as cursor:
        await cursor.execute(
            f"SELECT {COLUMNS} FROM users WHERE user_id > %s ORDER BY user_id LIMIT %s",
            (after, limit),
        )
        return await cursor.fetchall()


async def count_by_appservice(db: Connection) -> dict[str, int]:
    """The number of users that each application service has registered, by its id."""
    cursor = await db.execute(
        """
        SELECT appservice, count(*) FROM users WHERE appservice IS NOT NULL GROUP BY appservice
        """
    )
    return dict(await cursor.fetchall())


async def users_of_appservice(db: Connection, appservice: str, limit: int) -> list[str]:
    """The first users that an application service has registered, sorted."""
    cursor = await db.execute(
        "SELECT user_id FROM users WHERE appservice = %s ORDER BY user_id LIMIT %s",
        (appservice, limit),
    )
    return [row[0] for row in await cursor.fetchall()]


def all_names(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str | None]]:
    """All user ids, each with the application service that made it; without a reactor."""
    with connection.transaction(), connection.cursor(name="all_names") as cursor:
        cursor.execute("SELECT user_id, appservice FROM users")
        yield from cursor


async def users_among(db: Connection, user_ids: Sequence[str]) -> set[str]:
    """The existing users among these ids."""
    cursor = await db.execute(
        "SELECT user_id FROM users WHERE user_id = ANY(%s)", (list(user_ids),)
    )
    return {row[0] for row in await cursor.fetchall()}


async def guests_among(db: Connection, user_ids: Sequence[str]) -> list[str]:
    """The guests among these users."""
    cursor = await db.execute(
        "SELECT user_id FROM users WHERE user_id = ANY(%s) AND is_guest AND NOT is_deactivated",
        (list(user_ids),),
    )
    return [row[0] for row in await cursor.fetchall()]


async def erased_users(db: Connection) -> list[str]:
    """All users who requested erasure when their account was deactivated."""
    cursor = await db.execute("SELECT user_id FROM users WHERE is_erased")
    return [row[0] for row in await cursor.fetchall()]


async def next_generated_localpart(db: Connection) -> int:
    """A number that this server has not yet used as a localpart."""
    cursor = await db.execute("SELECT nextval('generated_localparts')")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def set_password_hash(db: Connection, user_id: str, password_hash: str) -> None:
    """Replace the password of an account."""
    await db.execute(
        "UPDATE users SET password_hash = %s WHERE user_id = %s", (password_hash, user_id)
    )


async def upgrade_guest(db: Connection, user_id: str, password_hash: str | None) -> bool:
    """Make a guest a full user; false if there is no such guest."""
    cursor = await db.execute(
        """
        UPDATE users SET is_guest = false, password_hash = %s
         WHERE user_id = %s AND is_guest AND NOT is_deactivated
        """,
        (password_hash, user_id),
    )
    return cursor.rowcount == 1


async def set_admin(db: Connection, user_id: str, is_admin: bool) -> None:
    """Make a user an administrator of this server, or no longer one."""
    await db.execute("UPDATE users SET is_admin = %s WHERE user_id = %s", (is_admin, user_id))


async def set_locked(db: Connection, user_id: str, is_locked: bool) -> None:
    """Lock or unlock an account."""
    await db.execute("UPDATE users SET is_locked = %s WHERE user_id = %s", (is_locked, user_id))


async def set_suspended(db: Connection, user_id: str, is_suspended: bool) -> None:
    """Suspend an account, or end its suspension."""
    await db.execute(
        "UPDATE users SET is_suspended = %s WHERE user_id = %s", (is_suspended, user_id)
    )


async def deactivate_user(db: Connection, user_id: str, erase: bool) -> None:
    """Deactivate an account permanently. An earlier request for erasure stays in force."""
    await db.execute(
        """
        UPDATE users
           SET is_deactivated = true, is_leaving = true, is_erased = is_erased OR %s,
               password_hash = NULL, is_admin = false
         WHERE user_id = %s
        """,
        (erase, user_id),
    )


async def unfinished_deactivations(db: Connection) -> list[User]:
    """Deactivated users whose data is still to be removed, a hundred at most."""
    async with db.cursor(row_factory=class_row(User)) as cursor:
        await cursor.execute(f"SELECT {COLUMNS} FROM users WHERE is_leaving LIMIT 100")
        return await cursor.fetchall()


async def end_deactivation(db: Connection, user_id: str) -> None:
    """Record that the data of a deactivated user has been removed."""
    await db.execute("UPDATE users SET is_leaving = false WHERE user_id = %s", (user_id,))
