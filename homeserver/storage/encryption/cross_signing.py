"""Cross-signing keys, and the signatures that were uploaded apart from the keys that they sign.

Owns the tables `cross_signing_keys` and `key_signatures` (migrations/0027_encryption.sql).
"""

from collections.abc import Sequence
from typing import NamedTuple

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

SET_REMOTE_CROSS_SIGNING_KEY = BatchStatement(
    "set_remote_cross_signing_key",
    """
    INSERT INTO cross_signing_keys (user_id, usage, key)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::bytea[])
     ORDER BY 1, 2
        ON CONFLICT (user_id, usage) DO UPDATE SET key = EXCLUDED.key
    """,
    columns=("text", "text", "bytea"),
    key=(0, 1),
)

DELETE_CROSS_SIGNING_KEY = BatchStatement(
    "delete_cross_signing_key",
    """
    DELETE FROM cross_signing_keys
     USING unnest(%s::text[], %s::text[]) AS gone (user_id, usage)
     WHERE cross_signing_keys.user_id = gone.user_id AND cross_signing_keys.usage = gone.usage
    """,
    columns=("text", "text"),
    key=(0, 1),
)

# Late: signatures that arrive in the commit that removes the key are deleted with it.
DELETE_SIGNATURES_OF_KEY = BatchStatement(
    "delete_signatures_of_key",
    """
    DELETE FROM key_signatures
     USING unnest(%s::text[], %s::text[]) AS gone (user_id, key_id)
     WHERE key_signatures.signer = gone.user_id AND key_signatures.user_id = gone.user_id
       AND key_signatures.key_id = gone.key_id
    """,
    columns=("text", "text"),
    key=(0, 1),
    late=True,
)


class CrossSigningRow(NamedTuple):
    """A cross-signing key: `usage` is `master`, `self_signing` or `user_signing`; `key` is JSON."""

    user_id: str
    usage: str
    key: bytes


class SignatureRow(NamedTuple):
    """A signature by the key `signing_key` (as `ed25519:…`) of the key `key_id` of a user."""

    user_id: str
    key_id: str
    signing_key: str
    signature: str


async def cross_signing_keys_of(db: Connection, user_ids: Sequence[str]) -> list[CrossSigningRow]:
    """The cross-signing keys of some users."""
    cursor = await db.execute(
        "SELECT user_id, usage, key FROM cross_signing_keys WHERE user_id = ANY(%s)",
        (list(user_ids),),
    )
    return [CrossSigningRow(*row) for row in await cursor.fetchall()]


async def own_signatures_of(db: Connection, user_ids: Sequence[str]) -> list[SignatureRow]:
    """The signatures that some users made of their own keys: everybody may see these."""
    cursor = await db.execute(
        """
        SELECT user_id, key_id, signing_key, signature
          FROM key_signatures
         WHERE signer = ANY(%s) AND user_id = signer
        """,
        (list(user_ids),),
    )
    return [SignatureRow(*row) for row in await cursor.fetchall()]


async def signatures_by(db: Connection, signer: str, user_ids: Sequence[str]) -> list[SignatureRow]:
    """The signatures that a user made of keys of other users: only the signer may see these."""
    cursor = await db.execute(
        """
        SELECT user_id, key_id, signing_key, signature
          FROM key_signatures
         WHERE signer = %s AND user_id = ANY(%s) AND user_id <> signer
        """,
        (signer, list(user_ids)),
    )
    return [SignatureRow(*row) for row in await cursor.fetchall()]


async def users_signed_after(db: Connection, signer: str, position: int) -> dict[str, int]:
    """The other users of whose keys a user made signatures above a position; the latest of each."""
    cursor = await db.execute(
        """
        SELECT user_id, max(position)
          FROM key_signatures
         WHERE signer = %s AND user_id <> signer AND position > %s
         GROUP BY user_id
        """,
        (signer, position),
    )
    return dict(await cursor.fetchall())
