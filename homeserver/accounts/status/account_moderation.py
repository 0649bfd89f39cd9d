"""Account moderation: locking and suspending accounts, by administrators of this server.

A locked account keeps its sessions but can do nothing with them except log out; a suspended one can
read and leave, but not write. Administrators cannot be moderated while they have that role.

Spec: https://spec.matrix.org/v1.19/client-server-api/#account-moderation
"""

from collections.abc import Awaitable, Callable

from homeserver.accounts.sessions.access_tokens import AccessTokens
from homeserver.protocol.errors import Forbidden, InvalidParam, NotFound
from homeserver.protocol.identifiers import InvalidIdentifier, parse_user_id
from homeserver.storage.accounts.users import User, find_user, set_locked, set_suspended
from homeserver.storage.database.database import Database


class AccountModeration:
    """Locks and suspends accounts. The callers check that the requester is an administrator.

    `on_lock_changed(user_id)` is called after an account was locked or unlocked.
    """

    def __init__(
        self,
        db: Database,
        server_name: str,
        access_tokens: AccessTokens,
        on_lock_changed: Callable[[str], Awaitable[None]],
    ) -> None:
        self._on_lock_changed = on_lock_changed
        self._db = db
        self._server_name = server_name
        self._access_tokens = access_tokens

    async def get(self, user_id: str) -> User:
        """An account that may be moderated.

        Raises `InvalidParam` for remote users, `NotFound` for unknown and deactivated ones, and
        `Forbidden` for administrators.
        """
        try:
            server = parse_user_id(user_id).server_name
        except InvalidIdentifier:
            raise InvalidParam("Not a user ID") from None
        if server != self._server_name:
            raise InvalidParam("The user belongs to another server")
        user = await self._db.run(find_user, user_id)
        if user is None or user.is_deactivated:
            raise NotFound("No such user")
        if user.is_admin:
            raise Forbidden("The user is an administrator")
        return user

    async def set_locked(self, user_id: str, is_locked: bool) -> None:
        """Lock or unlock an account. Raises what `get` raises."""
        await self.get(user_id)
        await self._db.run(set_locked, user_id, is_locked)
        self._access_tokens.forget_user(user_id)
        await self._on_lock_changed(user_id)

    async def set_suspended(self, user_id: str, is_suspended: bool) -> None:
        """Suspend an account, or end its suspension. Raises what `get` raises."""
        await self.get(user_id)
        await self._db.run(set_suspended, user_id, is_suspended)
        self._access_tokens.forget_user(user_id)
