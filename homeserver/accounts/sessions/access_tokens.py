"""Access tokens: the account and device of a token, cached in memory.

Nearly every request begins here, so a hit costs one dictionary look-up and no coroutine. The
entries of a user are dropped whenever something in them changes: a device is removed, the account
is locked, the password is replaced. A look-up in progress at that time is not cached. Changes by
other processes are noticed after at most `GRANT_SECONDS`.

The first use of a token from a refresh revokes the refresh token that was used for it.

The token of an application service gives access to the users that it acts as, one for each
request (`accounts/appservices/masquerading.py`).

Spec: https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.appservices.masquerading import (
    AssertedIdentity,
    asserted_identity,
    load_requester,
)
from homeserver.accounts.sessions.devices import DevicesRemoved
from homeserver.accounts.sessions.last_seen import LastSeen, SeenRequest
from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.secret_tokens import token_hash
from homeserver.concurrency.clock import Clock, now_ms, wall_seconds
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import MissingToken, UnknownToken, UserLocked
from homeserver.storage.accounts.access_tokens import AccessToken, find_access_token
from homeserver.storage.accounts.devices import lock_device
from homeserver.storage.accounts.refresh_tokens import delete_predecessor, has_predecessor
from homeserver.storage.accounts.users import User, find_user
from homeserver.storage.database.database import Connection, Database

MAX_CACHED = 50_000  # tokens, and users as whom application services act
MAX_TOKEN = 255  # characters; tokens of this server are shorter
MAX_UNKNOWN = 10_000  # tokens that are known to be invalid
UNKNOWN_SECONDS = 10.0
GRANT_SECONDS = 300.0

_Key = str | AssertedIdentity


class AuthenticatedRequest(SeenRequest, Protocol):
    """The parts of a request that authentication needs besides the token."""

    @property
    def parameters(self) -> Mapping[str, list[str]]:
        """The query parameters."""


class Grant(msgspec.Struct, frozen=True):
    """The account and device that one token gives access to."""

    caller: Requester
    is_locked: bool
    expires_at: float  # seconds since the epoch; infinite for a token that does not expire
    stale_at: float  # from then on it has to be looked up again


class AccessTokens:
    """Authenticates requests."""

    def __init__(
        self, db: Database, clock: Clock, last_seen: LastSeen, appservices: Appservices
    ) -> None:
        self._db = db
        self._clock = clock
        self._last_seen = last_seen
        self._appservices = appservices
        self._grants: LruCache[_Key, Grant] = LruCache(
            "access_tokens", MAX_CACHED, on_evict=self._unlink
        )
        self._tokens_of: dict[str, set[_Key]] = {}
        self._unknown: LruCache[str, float] = LruCache("unknown_access_tokens", MAX_UNKNOWN)
        self._forgotten = 0  # counts the calls of `forget_user`

    def authenticate(
        self, token: str, request: AuthenticatedRequest
    ) -> Requester | Awaitable[Requester]:
        """The requester of a token, without waiting if it is in memory.

        Raises `UnknownToken` for a token that is not, or no longer, valid, and `UserLocked`.
        """
        key = (
            token
            if (service := self._appservices.by_token(token)) is None
            else (asserted_identity(service, request.parameters))
        )
        grant = self._grants.get(key)
        if grant is None or self._clock.seconds() >= grant.stale_at:
            return self._authenticate_slowly(key, request)
        return self._admit(grant, request)

    async def get_caller(
        self, token: str | None, parameters: Mapping[str, list[str]] | None = None
    ) -> Requester:
        """The requester of a token, even of a locked account, for special requests.

        Application services are known where the query `parameters` are given. Raises
        `MissingToken` and `UnknownToken`, and what asserting an identity raises.
        """
        if token is None:
            raise MissingToken("The access token is missing")
        service = None if parameters is None else self._appservices.by_token(token)
        if service is None or parameters is None:
            return (await self._grant(token)).caller
        return (await self._grant(asserted_identity(service, parameters))).caller

    def forget_user(self, user_id: str) -> None:
        """Look up this user's tokens again at their next use."""
        self._forgotten += 1
        for token in self._tokens_of.pop(user_id, ()):
            self._grants.pop(token)

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: the tokens of removed devices end."""
        for entry in entries:
            if isinstance(entry, DevicesRemoved):
                self.forget_user(entry.user_id)

    async def _authenticate_slowly(self, key: _Key, request: SeenRequest) -> Requester:
        return self._admit(await self._grant(key), request)

    def _admit(self, grant: Grant, request: SeenRequest) -> Requester:
        now = wall_seconds(self._clock)
        if now >= grant.expires_at:
            raise UnknownToken("The access token has expired", soft_logout=True)
        if grant.is_locked:
            raise UserLocked("This account has been locked")
        caller = grant.caller
        if caller.device_id is not None:
            self._last_seen.note(caller.user_id, caller.device_id, request, now)
        return caller

    async def _grant(self, key: _Key) -> Grant:
        grant = self._grants.peek(key)
        if grant is not None and self._clock.seconds() < grant.stale_at:
            return grant
        before = self._forgotten
        if isinstance(key, str):
            grant = await self._look_up(key)
        else:
            caller = await self._db.run(load_requester, key)
            grant = Grant(caller, False, float("inf"), self._clock.seconds() + GRANT_SECONDS)
        if before == self._forgotten:
            self._remember(key, grant)
        return grant

    async def _look_up(self, token: str) -> Grant:
        if len(token) > MAX_TOKEN or (self._unknown.get(token) or 0.0) > self._clock.seconds():
            raise UnknownToken("Unrecognised access token")
        grant = await self._db.run(self._load, token)
        if grant is None:
            self._drop(token)
            self._unknown.put(token, self._clock.seconds() + UNKNOWN_SECONDS)
            raise UnknownToken("Unrecognised access token")
        return grant

    async def _load(self, db: Connection, token: str) -> Grant | None:
        stored = await find_access_token(db, token_hash(token))
        user = stored and await find_user(db, stored.user_id)
        if not stored or not user or user.is_deactivated:
            return None
        expired = stored.expires_ms is not None and stored.expires_ms <= now_ms(self._clock)
        refreshed = stored.refresh_token
        if refreshed is not None and not expired and await has_predecessor(db, refreshed):
            await _revoke_predecessor(db, stored, refreshed)
            self.forget_user(stored.user_id)
        return _grant_of(stored, user, self._clock.seconds() + GRANT_SECONDS)

    def _remember(self, key: _Key, grant: Grant) -> None:
        self._tokens_of.setdefault(grant.caller.user_id, set()).add(key)
        self._grants.put(key, grant)

    def _drop(self, token: str) -> None:
        grant = self._grants.pop(token)
        if grant is not None:
            self._unlink(token, grant)

    def _unlink(self, key: _Key, grant: Grant) -> None:
        tokens = self._tokens_of[grant.caller.user_id]
        tokens.discard(key)
        if not tokens:
            del self._tokens_of[grant.caller.user_id]


async def _revoke_predecessor(db: Connection, token: AccessToken, refreshed: int) -> None:
    assert token.device_id is not None, "tokens that can be refreshed belong to a device"
    async with db.transaction():
        if await lock_device(db, token.user_id, token.device_id):
            await delete_predecessor(db, refreshed)


def _grant_of(token: AccessToken, user: User, stale_at: float) -> Grant:
    caller = Requester(
        user_id=token.user_id,
        device_id=token.device_id,
        token=token.id,
        is_guest=user.is_guest,
        is_admin=user.is_admin,
        is_suspended=user.is_suspended,
        is_oauth=token.oauth_session is not None,
    )
    expires_at = float("inf") if token.expires_ms is None else token.expires_ms / 1000
    return Grant(caller, user.is_locked, expires_at, stale_at)
