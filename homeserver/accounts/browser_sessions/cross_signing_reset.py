"""The permission of a user to replace their cross-signing keys, given on a page of this server.

A client that got its token by the OAuth 2.0 API has no password to confirm this with. It sends the
user to the page, and repeats its request afterwards. The permission is stored, since the server may
be restarted between the two.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-authentication
"""

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.storage.browser_sessions.cross_signing_resets import (
    allow_cross_signing_reset,
    delete_cross_signing_reset,
    is_cross_signing_reset_allowed,
)
from homeserver.storage.database.database import Database

ALLOWED_MS = 10 * 60 * 1000


class CrossSigningReset:
    """Remembers for ten minutes who may replace their cross-signing keys."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def allow(self, user_id: str) -> None:
        """Allow a user to replace their keys once, in the next ten minutes."""
        await self._db.run(allow_cross_signing_reset, user_id, now_ms(self._clock) + ALLOWED_MS)

    async def is_allowed(self, user_id: str) -> bool:
        """Whether a user may replace their keys now."""
        allowed: bool = await self._db.run(
            is_cross_signing_reset_allowed, user_id, now_ms(self._clock)
        )
        return allowed

    async def end(self, user_id: str) -> None:
        """End the permission: the keys were replaced."""
        await self._db.run(delete_cross_signing_reset, user_id)
