"""Sessions: logging in to a device, refreshing its tokens, logging out.

Logging in to an existing device replaces its tokens. A client that requests refresh tokens gets an
access token that expires; `refresh` returns the next pair. The old pair stays valid until the new
one is used, so that a client which lost the response can repeat the request.

Spec:
https://spec.matrix.org/v1.19/client-server-api/#relationship-between-access-tokens-and-devices
"""

import msgspec

from homeserver.accounts.sessions.access_tokens import AccessTokens
from homeserver.accounts.sessions.devices import Devices, check_device_id, check_display_name
from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.secret_tokens import new_device_id, new_token, token_hash
from homeserver.accounts.sessions.token_issuer import TokenIssuer, TokenOwner, TokenPair
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.config.sections.accounts import TokenSettings
from homeserver.protocol.encryption.cross_signing_keys import is_public_key, public_key_of
from homeserver.protocol.errors import (
    InvalidParam,
    MissingParam,
    UnknownToken,
    UserLimitExceeded,
    UserLocked,
)
from homeserver.storage.accounts.access_tokens import (
    delete_access_token,
    delete_access_tokens_of_device,
    delete_access_tokens_of_user,
    insert_access_token,
)
from homeserver.storage.accounts.devices import count_devices, insert_device, lock_device
from homeserver.storage.accounts.refresh_tokens import (
    RefreshToken,
    delete_predecessor,
    delete_refresh_tokens_of_device,
    delete_successors,
    find_refresh_token,
)
from homeserver.storage.accounts.users import find_user
from homeserver.storage.browser_sessions.browser_sessions import delete_browser_sessions_of
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.encryption.cross_signing import cross_signing_keys_of
from homeserver.storage.oauth.cleanup import delete_oauth_grants_of
from homeserver.storage.oauth.sessions import delete_oauth_session_of_device

MAX_DEVICES = 2_000  # of one user: programs that log in at each start have many


class DeviceRequest(msgspec.Struct, frozen=True):
    """The parameters of the device that a client logs in."""

    device_id: str | None = None
    display_name: str | None = None
    wants_refresh_token: bool = False

    def check(self) -> None:
        """Raise `InvalidParam` for an invalid device id or display name."""
        if self.device_id is not None:
            check_device_id(self.device_id)
        if self.display_name is not None:
            check_display_name(self.display_name)


class LoginSession(msgspec.Struct, frozen=True):
    """A user who is logged in to a device; `is_new` if they did not have it before."""

    user_id: str
    device_id: str
    tokens: TokenPair
    is_new: bool


class LoginSessions:
    """Opens, refreshes and ends sessions. The callers decide who may do so."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: TokenSettings,
        devices: Devices,
        access_tokens: AccessTokens,
    ) -> None:
        self._db = db
        self._clock = clock
        self._issuer = TokenIssuer(
            clock, settings.access_token_lifetime, settings.refresh_token_lifetime
        )
        self._devices = devices
        self._access_tokens = access_tokens

    async def open(self, user_id: str, request: DeviceRequest) -> LoginSession:
        """Log a user in to a new device, or again to one they have.

        Raises `InvalidParam`, and `UserLimitExceeded` for too many devices.
        """
        request.check()
        if request.device_id is not None and is_public_key(request.device_id):
            async with self._devices.key_locks.hold(user_id):
                return await self._open(user_id, request)
        return await self._open(user_id, request)

    async def _open(self, user_id: str, request: DeviceRequest) -> LoginSession:
        session = await self._db.transaction(self.open_within, user_id, request)
        self._access_tokens.forget_user(user_id)
        if session.is_new:
            await self._devices.added(user_id, session.device_id)
        return session

    async def open_within(
        self, db: Connection, user_id: str, request: DeviceRequest
    ) -> LoginSession:
        """`open` as part of the caller's transaction, for users who had no session before."""
        device_id = request.device_id or new_device_id()
        now = now_ms(self._clock)
        is_new = await self.claim_device_within(db, user_id, device_id, request.display_name)
        if request.wants_refresh_token:
            tokens = await self._issuer.issue(db, TokenOwner(user_id, device_id))
        else:
            tokens = TokenPair(new_token())
            hashed = token_hash(tokens.access_token)
            await insert_access_token(db, hashed, user_id, device_id, now_ms=now)
        return LoginSession(user_id, device_id, tokens, is_new)

    async def claim_device_within(
        self, db: Connection, user_id: str, device_id: str, display_name: str | None
    ) -> bool:
        """Add a device for a new session, or end the session of one that the user has.

        True if it is new. Part of the caller's transaction; raises what `add_device_within` does.
        """
        while not await self.add_device_within(db, user_id, device_id, display_name):
            if await lock_device(db, user_id, device_id):
                break
        else:
            return True
        await delete_access_tokens_of_device(db, user_id, device_id)
        await delete_refresh_tokens_of_device(db, user_id, device_id)
        await delete_oauth_session_of_device(db, user_id, device_id)
        return False

    async def add_device(self, user_id: str, device_id: str, display_name: str | None) -> bool:
        """Add a device without tokens; false, and no change, if the user has it already.

        Raises `InvalidParam`, and `UserLimitExceeded` for too many devices.
        """
        DeviceRequest(device_id, display_name).check()
        async with self._devices.key_locks.hold(user_id):
            is_new: bool = await self._db.transaction(
                self.add_device_within, user_id, device_id, display_name
            )
        if is_new:
            self._access_tokens.forget_user(user_id)
            await self._devices.added(user_id, device_id)
        return is_new

    async def add_device_within(
        self, db: Connection, user_id: str, device_id: str, display_name: str | None
    ) -> bool:
        """Add a device without tokens as part of the caller's transaction.

        False, and no change, if the user has it already. Raises `UserLimitExceeded`, and
        `InvalidParam` for the id of one of the user's cross-signing keys.
        """
        if is_public_key(device_id):
            await _check_is_no_key(db, user_id, device_id)
        if not await insert_device(db, user_id, device_id, display_name, now_ms(self._clock)):
            return False
        if await count_devices(db, user_id, MAX_DEVICES + 1) > MAX_DEVICES:
            raise UserLimitExceeded(f"A user has at most {MAX_DEVICES} devices")
        return True

    async def refresh(self, refresh_token: str) -> TokenPair:
        """The next pair of tokens. Raises `UnknownToken` and `UserLocked`."""
        stored, tokens = await self._db.transaction(self._refresh, token_hash(refresh_token))
        if stored.predecessor is not None:
            self._access_tokens.forget_user(stored.user_id)
        return tokens

    async def close(self, caller: Requester) -> None:
        """Log out of the device that the caller uses, or end a token that has no device.

        Raises `MissingParam` for an application service that names no device.
        """
        if caller.device_id is None and caller.appservice is not None:
            raise MissingParam("An application service has no session; name the device to log out")
        if caller.device_id is not None:
            await self.close_device(caller.user_id, caller.device_id)
        else:
            await self._db.run(delete_access_token, caller.token)
            self._access_tokens.forget_user(caller.user_id)

    async def close_device(self, user_id: str, device_id: str) -> None:
        """Log out of one device."""
        await self._devices.remove(user_id, [device_id])
        self._access_tokens.forget_user(user_id)

    async def close_all(self, user_id: str, *, but: Requester | None = None) -> None:
        """Log out all sessions of a user, or all but that of `but`; those of browsers, too."""
        await self._db.run(delete_browser_sessions_of, user_id)
        await self._db.run(delete_oauth_grants_of, user_id)
        await self._devices.remove_all(user_id, but=but.device_id if but else None)
        await self._db.run(
            delete_access_tokens_of_user,
            user_id,
            without_device=True,
            but=but.token if but else 0,
        )
        self._access_tokens.forget_user(user_id)

    async def _refresh(self, db: Connection, hashed: bytes) -> tuple[RefreshToken, TokenPair]:
        stored = await find_refresh_token(db, hashed)
        if stored is not None:
            await lock_device(db, stored.user_id, stored.device_id)
            # Another request may have changed it until now.
            stored = await find_refresh_token(db, hashed)
        # The two APIs are not compatible: each refreshes its own tokens.
        if stored is None or stored.oauth_session is not None:
            raise UnknownToken("Unrecognised refresh token")
        if stored.expires_ms is not None and stored.expires_ms <= now_ms(self._clock):
            raise UnknownToken("The refresh token has expired", soft_logout=True)
        user = await find_user(db, stored.user_id)
        if user is None or user.is_locked:
            raise UserLocked("This account has been locked")
        await delete_predecessor(db, stored.id)
        await delete_successors(db, stored.id)
        owner = TokenOwner(stored.user_id, stored.device_id)
        return stored, await self._issuer.issue(db, owner, predecessor=stored.id)


async def _check_is_no_key(db: Connection, user_id: str, device_id: str) -> None:
    """Raise `InvalidParam` for a device id that is one of the user's cross-signing keys.

    Clients name the keys of devices and cross-signing keys alike.
    """
    for row in await cross_signing_keys_of(db, [user_id]):
        if public_key_of(msgspec.json.decode(row.key)) == device_id:
            raise InvalidParam("The device ID is that of a cross-signing key of the user")
