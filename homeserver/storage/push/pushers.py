"""Pushers: where each user's notifications are sent, and how far they were sent.

Owns the table `pushers` (migrations/0031_pushers.sql, 0033_email_pushers.sql). A pusher whose
device, access token or e-mail address is gone is not read any more, even where its row is still
there.
"""

from collections.abc import Sequence

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

# Those that add or remove pushers are late: a batch can have changes of the progress of the same
# pushers, and one statement must not change a row twice.
UPSERT_PUSHER = BatchStatement(
    "upsert_pusher",
    """
    INSERT INTO pushers (pusher, user_id, device_id, token, kind, app_id, pushkey,
                         app_display_name, device_display_name, profile_tag, lang, data, enabled,
                         set_position, set_ms, unsubscribe_token, sent_upto)
    SELECT given.*, given.set_position
      FROM unnest(%s::int8[], %s::text[], %s::text[], %s::int8[], %s::text[], %s::text[],
                  %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[],
                  %s::bool[], %s::int8[], %s::int8[], %s::text[])
           AS given (pusher, user_id, device_id, token, kind, app_id, pushkey, app_display_name,
                     device_display_name, profile_tag, lang, data, enabled, set_position, set_ms,
                     unsubscribe_token)
     WHERE device_id IS NULL
        OR EXISTS (SELECT FROM devices
                    WHERE devices.user_id = given.user_id
                      AND devices.device_id = given.device_id)
        ON CONFLICT (app_id, pushkey, user_id) DO UPDATE
       SET device_id = EXCLUDED.device_id, token = EXCLUDED.token, kind = EXCLUDED.kind,
           app_display_name = EXCLUDED.app_display_name,
           device_display_name = EXCLUDED.device_display_name,
           profile_tag = EXCLUDED.profile_tag, lang = EXCLUDED.lang, data = EXCLUDED.data,
           enabled = EXCLUDED.enabled, set_position = EXCLUDED.set_position,
           set_ms = EXCLUDED.set_ms, unsubscribe_token = EXCLUDED.unsubscribe_token,
           behind_since = CASE WHEN EXCLUDED.enabled THEN pushers.behind_since END,
           failing_since_ms = NULL
     WHERE pushers.set_position < EXCLUDED.set_position
    """,
    columns=(
        *("int8", "text", "text", "int8", "text", "text", "text", "text", "text", "text"),
        *("text", "bytea", "bool", "int8", "int8", "text"),
    ),
    key=(1, 5, 6),
    late=True,
)

DELETE_PUSHER = BatchStatement(
    "delete_pusher",
    """
    DELETE FROM pushers
     USING unnest(%s::int8[], %s::int8[]) AS gone (pusher, upto)
     WHERE pushers.pusher = gone.pusher AND pushers.set_position <= gone.upto
    """,
    columns=("int8", "int8"),
    key=(0,),
    late=True,
)

DELETE_PUSHERS_OF_OTHERS = BatchStatement(
    "delete_pushers_of_others",
    """
    DELETE FROM pushers
     USING unnest(%s::text[], %s::text[], %s::text[]) AS kept (app_id, pushkey, user_id)
     WHERE pushers.app_id = kept.app_id AND pushers.pushkey = kept.pushkey
       AND pushers.user_id <> kept.user_id
    """,
    columns=("text", "text", "text"),
    key=(0, 1),
    late=True,
)

DELETE_PUSHERS_OF_DEVICE = BatchStatement(
    "delete_pushers_of_device",
    """
    DELETE FROM pushers
     USING unnest(%s::text[], %s::text[]) AS gone (user_id, device_id)
     WHERE pushers.user_id = gone.user_id AND pushers.device_id = gone.device_id
    """,
    columns=("text", "text"),
    key=(0, 1),
    late=True,
)

SET_PUSHER_PROGRESS = BatchStatement(
    "set_pusher_progress",
    """
    UPDATE pushers
       SET sent_upto = GREATEST(pushers.sent_upto, now.sent_upto), badge = now.badge,
           behind_since = now.behind_since, failing_since_ms = now.failing_since_ms
      FROM unnest(%s::int8[], %s::int8[], %s::int4[], %s::int8[], %s::int8[])
           AS now (pusher, sent_upto, badge, behind_since, failing_since_ms)
     WHERE pushers.pusher = now.pusher
    """,
    columns=("int8", "int8", "int4", "int8", "int8"),
    key=(0,),
)

SET_DIGEST_PROGRESS = BatchStatement(
    "set_digest_progress",
    """
    UPDATE pushers
       SET sent_upto = GREATEST(pushers.sent_upto, now.sent_upto), behind_since = now.behind_since,
           failing_since_ms = now.failing_since_ms, digest = now.digest
      FROM unnest(%s::int8[], %s::int8[], %s::int8[], %s::int8[], %s::bytea[])
           AS now (pusher, sent_upto, behind_since, failing_since_ms, digest)
     WHERE pushers.pusher = now.pusher
    """,
    columns=("int8", "int8", "int8", "int8", "bytea"),
    key=(0,),
)

_COLUMNS = """
    pusher, user_id, device_id, token, kind, app_id, pushkey, app_display_name,
    device_display_name, profile_tag, lang, data, enabled, set_position, set_ms, sent_upto,
    behind_since, failing_since_ms, badge, digest, unsubscribe_token,
    EXISTS (SELECT FROM users WHERE users.user_id = pushers.user_id AND is_locked) AS is_locked
"""
_EXISTS = """
    (device_id IS NULL
     OR EXISTS (SELECT FROM devices WHERE devices.user_id = pushers.user_id
                                      AND devices.device_id = pushers.device_id))
    AND (token IS NULL OR EXISTS (SELECT FROM access_tokens WHERE access_tokens.id = token))
    AND (kind <> 'email' OR EXISTS (SELECT FROM third_party_ids
                                     WHERE third_party_ids.user_id = pushers.user_id
                                       AND medium = 'email' AND address = pushkey))
"""


class PusherRow(msgspec.Struct, frozen=True):
    """One pusher. `is_locked` says that its user's account is, which is no column of the table."""

    pusher: int
    user_id: str
    device_id: str | None
    token: int | None
    kind: str
    app_id: str
    pushkey: str
    app_display_name: str
    device_display_name: str
    profile_tag: str
    lang: str
    data: bytes
    enabled: bool
    set_position: int
    set_ms: int
    sent_upto: int
    behind_since: int | None
    failing_since_ms: int | None
    badge: int | None
    digest: bytes | None
    unsubscribe_token: str | None
    is_locked: bool


async def pushers_of(db: Connection, user_ids: Sequence[str]) -> list[PusherRow]:
    """The pushers of some users, oldest first."""
    async with db.cursor(row_factory=class_row(PusherRow)) as cursor:
        await cursor.execute(
            f"""
            SELECT {_COLUMNS} FROM pushers
             WHERE user_id = ANY(%s::text[]) AND {_EXISTS}
             ORDER BY pusher
            """,
            (list(user_ids),),
        )
        return await cursor.fetchall()


async def all_pushers_of(db: Connection, user_id: str) -> list[PusherRow]:
    """The pushers of a user, with those whose device or address is gone."""
    async with db.cursor(row_factory=class_row(PusherRow)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM pushers WHERE user_id = %s", (user_id,))
        return await cursor.fetchall()


async def users_with_pushers(db: Connection) -> list[str]:
    """All users who have pushers."""
    cursor = await db.execute("SELECT DISTINCT user_id FROM pushers")
    return [user_id for (user_id,) in await cursor.fetchall()]


async def users_with_pushers_behind(db: Connection) -> list[str]:
    """The users some of whose pushers lack events."""
    cursor = await db.execute("SELECT DISTINCT user_id FROM pushers WHERE behind_since IS NOT NULL")
    return [user_id for (user_id,) in await cursor.fetchall()]


async def other_users_with(db: Connection, app_id: str, pushkey: str, user_id: str) -> list[str]:
    """The users other than this one who have a pusher with an app id and pushkey."""
    cursor = await db.execute(
        "SELECT user_id FROM pushers WHERE app_id = %s AND pushkey = %s AND user_id <> %s",
        (app_id, pushkey, user_id),
    )
    return [other for (other,) in await cursor.fetchall()]


async def pusher_by_unsubscribe_token(db: Connection, token: str) -> PusherRow | None:
    """The pusher by e-mail that a token names."""
    async with db.cursor(row_factory=class_row(PusherRow)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM pushers WHERE unsubscribe_token = %s", (token,)
        )
        return await cursor.fetchone()
