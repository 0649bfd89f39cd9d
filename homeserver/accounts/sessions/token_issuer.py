"""The issue of tokens: pairs of an access token, which expires, and a refresh token.

Spec: https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens
"""

import msgspec

from homeserver.accounts.sessions.secret_tokens import new_token, token_hash
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.storage.accounts.access_tokens import insert_access_token
from homeserver.storage.accounts.refresh_tokens import insert_refresh_token
from homeserver.storage.database.database import Connection


class TokenPair(msgspec.Struct, frozen=True):
    """The tokens with which a client authenticates from now on."""

    access_token: str
    refresh_token: str | None = None
    expires_in_ms: int | None = None


class TokenOwner(msgspec.Struct, frozen=True):
    """The device of a session, and its number if it is one of the OAuth 2.0 API."""

    user_id: str
    device_id: str
    oauth_session: int | None = None


class TokenIssuer:
    """Issues tokens with certain lifetimes, in seconds."""

    def __init__(self, clock: Clock, access_lifetime: int, refresh_lifetime: int | None) -> None:
        self._clock = clock
        self._access_life_ms = access_lifetime * 1000
        self._refresh_life_ms = None if refresh_lifetime is None else refresh_lifetime * 1000

    async def issue(
        self,
        db: Connection,
        owner: TokenOwner,
        *,
        predecessor: int | None = None,
        refresh_token: str | None = None,
    ) -> TokenPair:
        """The next pair of a session; `predecessor` is the refresh token that was used for it.

        `refresh_token` is the new refresh token, if it is not just a random one.
        """
        now = now_ms(self._clock)
        refresh_token = refresh_token or new_token()
        tokens = TokenPair(new_token(), refresh_token, self._access_life_ms)
        number = await insert_refresh_token(
            db,
            token_hash(refresh_token),
            owner.user_id,
            owner.device_id,
            predecessor=predecessor,
            expires_ms=None if self._refresh_life_ms is None else now + self._refresh_life_ms,
            oauth_session=owner.oauth_session,
        )
        await insert_access_token(
            db,
            token_hash(tokens.access_token),
            owner.user_id,
            owner.device_id,
            refresh_token=number,
            now_ms=now,
            expires_ms=now + self._access_life_ms,
            oauth_session=owner.oauth_session,
        )
        return tokens
