"""OpenID tokens: they let a third party verify a user's identity, and do nothing else.

Spec: https://spec.matrix.org/v1.19/client-server-api/#openid
"""

from homeserver.accounts.sessions.secret_tokens import new_token, token_hash
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import UnknownToken
from homeserver.storage.accounts.openid_tokens import find_openid_user, insert_openid_token
from homeserver.storage.database.database import Database

LIFETIME_SECONDS = 3600


class OpenIdTokens:
    """Issues OpenID tokens and finds their users."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def issue(self, user_id: str) -> str:
        """A token of this user, valid for `LIFETIME_SECONDS`."""
        token = new_token()
        expires_ms = now_ms(self._clock) + LIFETIME_SECONDS * 1000
        await self._db.run(insert_openid_token, token_hash(token), user_id, expires_ms)
        return token

    async def get_user(self, token: str) -> str:
        """The user of a token. Raises `UnknownToken`."""
        user_id = await self._db.run(find_openid_user, token_hash(token), now_ms(self._clock))
        if user_id is None:
            raise UnknownToken("Access token unknown or expired")
        return user_id
