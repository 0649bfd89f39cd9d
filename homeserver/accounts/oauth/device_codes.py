"""The device authorisation grant: a user permits a client from another device.

The client shows a short code, which the user enters on a page of this server. Only users who are
signed in can try codes, and few at a time, so that nobody finds one by guessing.

Spec: https://spec.matrix.org/v1.19/client-server-api/#device-authorisation-grant
"""

import secrets

import msgspec

from homeserver.accounts.oauth.clients import RegisteredClient
from homeserver.accounts.oauth.sessions import GrantedTokens, OAuthSessions, SessionGrant
from homeserver.accounts.sessions.secret_tokens import new_token, token_hash
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import LimitExceeded
from homeserver.protocol.oauth.client_metadata import DEVICE_CODE
from homeserver.protocol.oauth.errors import (
    ACCESS_DENIED,
    AUTHORIZATION_PENDING,
    EXPIRED_TOKEN,
    INVALID_GRANT,
    SLOW_DOWN,
    UNAUTHORIZED_CLIENT,
    OAuthError,
)
from homeserver.protocol.oauth.scopes import Scope, parse_scope
from homeserver.protocol.oauth.user_codes import ALPHABET, LENGTH, parse_user_code
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.oauth.device_codes import (
    StoredDeviceCode,
    decide_device_code,
    delete_device_code,
    delete_expired_device_codes,
    find_undecided_device_code,
    insert_device_code,
    lock_device_code,
    set_device_code_polled,
)

CODE_LIFE_MS = 15 * 60 * 1000
INTERVAL_MS = 5_000  # between two questions of the client
LENIENCY_MS = 1_000  # of a clock, and of the network
MAX_WAITING = 10_000  # clients
RETRY_AFTER_MS = 60_000


class DeviceCodes(msgspec.Struct, frozen=True):
    """The codes of a client that waits. The user sees the letters of `user_code`."""

    device_code: str
    user_code: str


class WaitingClient(msgspec.Struct, frozen=True):
    """A client that waits for a user's decision."""

    client_id: str
    scope: Scope


class DeviceGrants:
    """Gives clients codes, takes the decisions of users, and opens sessions."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        sessions: OAuthSessions,
        *,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._db = db
        self._clock = clock
        self._sessions = sessions
        self._max_waiting = max_waiting

    async def begin(self, client: RegisteredClient, scope: Scope) -> DeviceCodes:
        """Codes for a client. Raises `OAuthError`, and `LimitExceeded` where too many wait."""
        _check_grant_type(client)
        codes = DeviceCodes(new_token(), "".join(secrets.choice(ALPHABET) for _ in range(LENGTH)))
        waiting = StoredDeviceCode(client.client_id, scope.text, now_ms(self._clock) + CODE_LIFE_MS)
        hashes = token_hash(codes.device_code), token_hash(codes.user_code)
        # Expired codes stay until the clean-up, so that their clients learn why they are refused.
        is_added = await self._db.run(insert_device_code, *hashes, waiting, self._max_waiting)
        if not is_added:
            await self._db.run(delete_expired_device_codes, now_ms(self._clock))
            is_added = await self._db.run(insert_device_code, *hashes, waiting, self._max_waiting)
        if not is_added:
            raise LimitExceeded(RETRY_AFTER_MS, "Too many clients wait for their users")
        return codes

    async def find(self, typed: str) -> WaitingClient | None:
        """The client that shows a user code, if it waits for a decision."""
        letters = parse_user_code(typed)
        if letters is None:
            return None
        found = await self._db.run(
            find_undecided_device_code, token_hash(letters), now_ms(self._clock)
        )
        if found is None:
            return None
        return WaitingClient(found.client_id, parse_scope(found.scope))

    async def decide(self, typed: str, user_id: str, *, is_allowed: bool) -> bool:
        """Store the decision of a user; false where no client waits for one any more."""
        letters = parse_user_code(typed)
        if letters is None:
            return False
        stored: bool = await self._db.run(
            decide_device_code,
            token_hash(letters),
            now_ms(self._clock),
            user_id,
            is_allowed=is_allowed,
        )
        return stored

    async def poll(self, client: RegisteredClient, device_code: str) -> GrantedTokens:
        """The tokens, if the user has permitted them; raises `OAuthError` as long as not."""
        _check_grant_type(client)
        hashed = token_hash(device_code)
        found = await self._db.transaction(self._poll, client.client_id, hashed)
        user_id = self._decided_by(found)
        scope = parse_scope(found.scope)
        grant = SessionGrant(user_id, client.client_id, scope, client.metadata.name)

        async def redeem(db: Connection, _session: int) -> None:
            if await lock_device_code(db, hashed) is None:
                raise _invalid()
            await delete_device_code(db, hashed)

        return await self._sessions.open(grant, redeem)

    async def _poll(self, db: Connection, client_id: str, hashed: bytes) -> StoredDeviceCode:
        """What a device code stands for, as it was before this question."""
        found = await lock_device_code(db, hashed)
        if found is None or found.client_id != client_id:
            raise _invalid()
        await set_device_code_polled(db, hashed, now_ms(self._clock))
        return found

    def _decided_by(self, found: StoredDeviceCode) -> str:
        """The user who has permitted the client. Raises `OAuthError`."""
        now = now_ms(self._clock)
        if found.expires_ms <= now:
            raise OAuthError(EXPIRED_TOKEN, "the device code has expired")
        if found.user_id is None and now - found.polled_ms < INTERVAL_MS - LENIENCY_MS:
            raise OAuthError(SLOW_DOWN, "the client asks too often")
        if found.user_id is None:
            raise OAuthError(AUTHORIZATION_PENDING, "the user has not decided yet")
        if not found.is_allowed:
            raise OAuthError(ACCESS_DENIED, "the user has denied the request")
        return found.user_id


def _check_grant_type(client: RegisteredClient) -> None:
    if DEVICE_CODE not in client.metadata.grant_types:
        raise OAuthError(UNAUTHORIZED_CLIENT, "the client has not registered this grant type")


def _invalid() -> OAuthError:
    return OAuthError(INVALID_GRANT, "the device code is unknown, or was used already")
