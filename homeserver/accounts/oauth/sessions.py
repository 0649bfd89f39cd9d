"""Sessions of the OAuth 2.0 API: opened by a grant, refreshed and revoked by their client.

A session is a device with tokens, as the legacy API makes it, and ends as one. Besides it has a
client, which alone can refresh it, and a scope. Both APIs refuse the tokens of the other one.

A locked account keeps its sessions, and refreshes their tokens: the tokens of this API live for
minutes, and a client whose refresh is refused deletes all that it has. What the account may not do
is refused when the tokens are used, with the error that tells the client to wait.

Spec: https://spec.matrix.org/v1.19/client-server-api/#grant-types
"""

from collections.abc import Awaitable, Callable

import msgspec

from homeserver.accounts.oauth.refresh_tokens import (
    RefreshTokenParts,
    new_family,
    parse_refresh_token,
)
from homeserver.accounts.sessions.access_tokens import AccessTokens
from homeserver.accounts.sessions.devices import Devices
from homeserver.accounts.sessions.login_sessions import LoginSessions
from homeserver.accounts.sessions.secret_tokens import token_hash
from homeserver.accounts.sessions.token_issuer import TokenIssuer, TokenOwner, TokenPair
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import InvalidParam, UserLimitExceeded
from homeserver.protocol.oauth.errors import INVALID_GRANT, INVALID_SCOPE, OAuthError
from homeserver.protocol.oauth.scopes import Scope
from homeserver.storage.accounts.access_tokens import find_access_token
from homeserver.storage.accounts.devices import lock_device
from homeserver.storage.accounts.refresh_tokens import (
    delete_predecessor,
    delete_successors,
    find_refresh_token,
)
from homeserver.storage.accounts.users import find_user
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.oauth.sessions import (
    StoredOAuthSession,
    find_oauth_session,
    find_oauth_session_of_family,
    insert_oauth_session,
    set_oauth_generation,
)

MAX_TOKEN = 255  # characters; tokens of this server are shorter


class SessionGrant(msgspec.Struct, frozen=True):
    """A session that a user has permitted. A new device gets the `device_name`."""

    user_id: str
    client_id: str
    scope: Scope
    device_name: str


class GrantedTokens(msgspec.Struct, frozen=True):
    """The tokens of a client, and what they permit."""

    tokens: TokenPair
    scope: str


class OAuthSessions:
    """Opens, refreshes and revokes sessions. The callers decide who may open one."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        issuer: TokenIssuer,
        devices: Devices,
        access_tokens: AccessTokens,
        sessions: LoginSessions,
    ) -> None:
        self._db = db
        self._clock = clock
        self._issuer = issuer
        self._devices = devices
        self._access_tokens = access_tokens
        self._sessions = sessions

    async def open(
        self, grant: SessionGrant, redeem: Callable[[Connection, int], Awaitable[None]]
    ) -> GrantedTokens:
        """Log a user in to a device, in place of the session that it may have.

        `redeem(connection, session)` uses up what the session is made from, in one transaction
        with it; it raises `OAuthError` where this was done before. Raises that, too, for a user who
        no longer exists or has too many devices.
        """
        user_id, device_id = grant.user_id, grant.scope.device_id
        async with self._devices.key_locks.hold(user_id):
            try:
                is_new, tokens = await self._db.transaction(self._open, grant, redeem)
            except (InvalidParam, UserLimitExceeded) as error:
                raise OAuthError(INVALID_SCOPE, str(error)) from None
        self._access_tokens.forget_user(user_id)
        if is_new:
            await self._devices.added(user_id, device_id)
        return GrantedTokens(tokens, grant.scope.text)

    async def refresh(self, client_id: str, refresh_token: str) -> GrantedTokens:
        """The next pair of tokens. Raises `OAuthError`.

        An old token that was replaced ends the session: somebody has a copy of it.
        """
        parts = parse_refresh_token(refresh_token)
        if parts is None:
            raise _invalid()
        refreshed = await self._db.transaction(
            self._refresh, client_id, parts, token_hash(refresh_token)
        )
        if refreshed is None:
            await self._end_if_replayed(parts)
            raise _invalid()
        session, tokens = refreshed
        self._access_tokens.forget_user(session.user_id)
        return GrantedTokens(tokens, session.scope)

    async def revoke(self, token: str) -> None:
        """End the session of an access token or refresh token; unknown ones are ignored.

        An old refresh token of the session will do, too.
        """
        if len(token) > MAX_TOKEN:
            return
        session = await self._db.run(_session_of, token)
        if session is not None:
            await self.end(session)

    async def end(self, session: StoredOAuthSession) -> None:
        """Log out of the device of a session."""
        await self._sessions.close_device(session.user_id, session.device_id)

    async def end_numbered(self, number: int) -> None:
        """End a session by its number, if it still exists."""
        session = await self._db.run(find_oauth_session, number)
        if session is not None:
            await self.end(session)

    async def _open(
        self,
        db: Connection,
        grant: SessionGrant,
        redeem: Callable[[Connection, int], Awaitable[None]],
    ) -> tuple[bool, TokenPair]:
        user_id, device_id = grant.user_id, grant.scope.device_id
        user = await find_user(db, user_id)
        if user is None or user.is_deactivated or user.is_locked:
            raise OAuthError(INVALID_GRANT, "the account is locked, or no longer exists")
        is_new = await self._sessions.claim_device_within(db, user_id, device_id, grant.device_name)
        family = new_family()
        number = await insert_oauth_session(
            db, user_id, device_id, grant.client_id, grant.scope.text, family.family_hash
        )
        await redeem(db, number)
        owner = TokenOwner(user_id, device_id, number)
        return is_new, await self._issuer.issue(db, owner, refresh_token=family.next_token())

    async def _refresh(
        self, db: Connection, client_id: str, parts: RefreshTokenParts, hashed: bytes
    ) -> tuple[StoredOAuthSession, TokenPair] | None:
        """The session and the next tokens, or `None` for a token that is not stored."""
        session = await find_oauth_session_of_family(db, parts.family_hash)
        if session is None or not await lock_device(db, session.user_id, session.device_id):
            return None
        stored = await find_refresh_token(db, hashed)
        if stored is None or stored.oauth_session != session.id:
            return None
        if session.client_id != client_id:
            raise OAuthError(INVALID_GRANT, "the refresh token is that of another client")
        if stored.expires_ms is not None and stored.expires_ms <= now_ms(self._clock):
            raise OAuthError(INVALID_GRANT, "the refresh token has expired")
        await delete_predecessor(db, stored.id)
        await delete_successors(db, stored.id)
        await set_oauth_generation(db, session.id, parts.generation + 1)
        tokens = await self._issuer.issue(
            db,
            TokenOwner(session.user_id, session.device_id, session.id),
            predecessor=stored.id,
            refresh_token=parts.next_token(),
        )
        return session, tokens

    async def _end_if_replayed(self, parts: RefreshTokenParts) -> None:
        """End the session of a token that is not stored, if its successor was used.

        One of the newest generation was never replaced by its own successor: the client lost the
        response with it and repeated the request, or does both at the same time.
        """
        session = await self._db.run(find_oauth_session_of_family, parts.family_hash)
        if session is not None and parts.generation < session.generation:
            await self.end(session)


async def _session_of(db: Connection, token: str) -> StoredOAuthSession | None:
    parts = parse_refresh_token(token)
    if parts is not None:
        return await find_oauth_session_of_family(db, parts.family_hash)
    stored = await find_access_token(db, token_hash(token))
    if stored is None or stored.oauth_session is None:
        return None
    return await find_oauth_session(db, stored.oauth_session)


def _invalid() -> OAuthError:
    return OAuthError(INVALID_GRANT, "the refresh token is unknown, or was used already")
