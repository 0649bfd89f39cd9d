"""The authorisation code grant: a user permits a client, which gets a code for it.

A code is valid for a minute, and once. It is bound to the client, the address to which it was sent,
and the challenge of the client that began. A code that is used twice was stolen, from one or the
other: the session that it gave ends.

Spec: https://spec.matrix.org/v1.19/client-server-api/#authorisation-code-grant
"""

from homeserver.accounts.oauth.clients import RegisteredClient
from homeserver.accounts.oauth.sessions import GrantedTokens, OAuthSessions, SessionGrant
from homeserver.accounts.sessions.secret_tokens import new_token, token_hash
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.oauth.authorization_requests import AuthorizationRequest
from homeserver.protocol.oauth.client_metadata import AUTHORIZATION_CODE
from homeserver.protocol.oauth.code_challenges import is_proved
from homeserver.protocol.oauth.errors import INVALID_GRANT, UNAUTHORIZED_CLIENT, OAuthError
from homeserver.protocol.oauth.scopes import parse_scope
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.oauth.authorization_codes import (
    StoredCode,
    insert_authorization_code,
    lock_authorization_code,
    use_authorization_code,
)

CODE_LIFE_MS = 60_000
MAX_OF_USER = 20  # unused codes; the oldest give way


class CodeUsed(Exception):
    """A code was used by another request at the same time."""


class AuthorizationCodes:
    """Issues codes, and opens the sessions that they stand for."""

    def __init__(self, db: Database, clock: Clock, sessions: OAuthSessions) -> None:
        self._db = db
        self._clock = clock
        self._sessions = sessions

    async def issue(
        self,
        user_id: str,
        client: RegisteredClient,
        redirect_uri: str,
        request: AuthorizationRequest,
    ) -> str:
        """A code for a client that the user has permitted."""
        code = new_token()
        stored = StoredCode(
            user_id,
            client.client_id,
            redirect_uri,
            request.scope.text,
            request.code_challenge,
            now_ms(self._clock) + CODE_LIFE_MS,
        )
        await self._db.transaction(insert_authorization_code, token_hash(code), stored, MAX_OF_USER)
        return code

    async def redeem(
        self, client: RegisteredClient, code: str, redirect_uri: str, code_verifier: str
    ) -> GrantedTokens:
        """The tokens of the session that a code stands for. Raises `OAuthError`."""
        if AUTHORIZATION_CODE not in client.metadata.grant_types:
            raise OAuthError(UNAUTHORIZED_CLIENT, "the client has not registered this grant type")
        hashed = token_hash(code)
        stored = await self._db.transaction(lock_authorization_code, hashed)
        if stored is None or stored.client_id != client.client_id:
            raise _invalid()
        if stored.oauth_session is not None:
            await self._end_session_of(hashed)
            raise _invalid()
        self._check(stored, redirect_uri, code_verifier)
        scope = parse_scope(stored.scope)
        grant = SessionGrant(stored.user_id, client.client_id, scope, client.metadata.name)

        async def redeem(db: Connection, session: int) -> None:
            unused = await lock_authorization_code(db, hashed)
            if unused is None or unused.oauth_session is not None:
                raise CodeUsed
            await use_authorization_code(db, hashed, session)

        try:
            return await self._sessions.open(grant, redeem)
        except CodeUsed:
            await self._end_session_of(hashed)
            raise _invalid() from None

    async def _end_session_of(self, hashed: bytes) -> None:
        """End the session that a code gave, since somebody used it again."""
        used = await self._db.transaction(lock_authorization_code, hashed)
        if used is not None and used.oauth_session is not None:
            await self._sessions.end_numbered(used.oauth_session)

    def _check(self, stored: StoredCode, redirect_uri: str, code_verifier: str) -> None:
        if stored.expires_ms <= now_ms(self._clock):
            raise OAuthError(INVALID_GRANT, "the code has expired")
        if stored.redirect_uri != redirect_uri:
            raise OAuthError(INVALID_GRANT, "the code was sent to another redirect_uri")
        if not is_proved(code_verifier, stored.code_challenge):
            raise OAuthError(INVALID_GRANT, "the code_verifier does not match")


def _invalid() -> OAuthError:
    return OAuthError(INVALID_GRANT, "the code is unknown, or was used already")
