"""The deletion of what the OAuth 2.0 API needs no more, over all its tables.

Spec: https://spec.matrix.org/v1.19/client-server-api/#dynamic-client-registration-flow
"""

from homeserver.storage.database.database import Connection
from homeserver.storage.oauth.authorization_codes import (
    delete_expired_authorization_codes,
    delete_unused_authorization_codes_of,
)
from homeserver.storage.oauth.clients import delete_oauth_clients, oauth_clients_before
from homeserver.storage.oauth.device_codes import (
    delete_device_codes_of,
    delete_expired_device_codes,
)
from homeserver.storage.oauth.sessions import (
    delete_oauth_sessions_of_user,
    oauth_clients_with_sessions,
)

USED_CODES_MS = 60 * 60 * 1000  # for which the second use of a code is found
UNUSED_CLIENT_MS = 24 * 60 * 60 * 1000
PAGE = 1_000


async def delete_expired_oauth_rows(db: Connection, now_ms: int) -> None:
    """Delete expired codes, and clients without a session that registered over a day ago."""
    await delete_expired_authorization_codes(db, now_ms - USED_CODES_MS)
    await delete_expired_device_codes(db, now_ms)
    await delete_unused_oauth_clients(db, now_ms - UNUSED_CLIENT_MS)


async def delete_unused_oauth_clients(db: Connection, before: int) -> None:
    """Delete clients without a session that registered last before a time (ms since the epoch)."""
    after = ""
    while page := await oauth_clients_before(db, before, after, PAGE):
        used = await oauth_clients_with_sessions(db, page)
        await delete_oauth_clients(db, [each for each in page if each not in used], before)
        after = page[-1]


async def delete_oauth_grants_of(db: Connection, user_id: str) -> None:
    """Delete what a user has permitted, and no client has made a session of."""
    await delete_unused_authorization_codes_of(db, user_id)
    await delete_device_codes_of(db, user_id)


async def delete_oauth_data_of(db: Connection, user_id: str) -> None:
    """Delete all sessions of a user, and what would become one."""
    await delete_oauth_grants_of(db, user_id)
    await delete_oauth_sessions_of_user(db, user_id)
