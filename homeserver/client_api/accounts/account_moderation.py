"""Locking and suspending accounts, by administrators of this server.

Spec: https://spec.matrix.org/v1.19/client-server-api/#account-moderation
"""

import msgspec

from homeserver.accounts.status.account_moderation import AccountModeration
from homeserver.web.routes import Auth, Route

ADMIN = "/_matrix/client/v1/admin"


class Suspended(msgspec.Struct):
    suspended: bool


class Locked(msgspec.Struct):
    locked: bool


class AccountModerationApi:
    def __init__(self, moderation: AccountModeration) -> None:
        self._moderation = moderation

    def routes(self) -> list[Route]:
        suspend, lock = f"{ADMIN}/suspend/{{user_id}}", f"{ADMIN}/lock/{{user_id}}"
        return [
            Route("GET", suspend, self.get_admin_suspend_user, auth=Auth.ADMIN),
            Route("PUT", suspend, self.set_admin_suspend_user, auth=Auth.ADMIN),
            Route("GET", lock, self.get_admin_lock_user, auth=Auth.ADMIN),
            Route("PUT", lock, self.set_admin_lock_user, auth=Auth.ADMIN),
        ]

    async def get_admin_suspend_user(self, user_id: str) -> Suspended:
        """Whether an account is suspended."""
        return Suspended((await self._moderation.get(user_id)).is_suspended)

    async def set_admin_suspend_user(self, user_id: str, body: Suspended) -> Suspended:
        """Suspend an account, or end its suspension."""
        await self._moderation.set_suspended(user_id, body.suspended)
        return body

    async def get_admin_lock_user(self, user_id: str) -> Locked:
        """Whether an account is locked."""
        return Locked((await self._moderation.get(user_id)).is_locked)

    async def set_admin_lock_user(self, user_id: str, body: Locked) -> Locked:
        """Lock or unlock an account."""
        await self._moderation.set_locked(user_id, body.locked)
        return body
