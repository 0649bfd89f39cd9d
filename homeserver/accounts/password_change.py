"""A new password for an account that has one already.

Spec: https://spec.matrix.org/v1.19/client-server-api/#password-management
"""

from homeserver.accounts.caller import Caller
from homeserver.accounts.passwords import Passwords
from homeserver.accounts.sessions import Sessions
from homeserver.protocol.errors import Forbidden
from homeserver.storage.database import Database
from homeserver.storage.login_tokens import delete_login_tokens_of
from homeserver.storage.users import set_password_hash


class PasswordChange:
    """Replaces passwords. That the owner wants it is ascertained by the callers."""

    def __init__(
        self, db: Database, passwords: Passwords, sessions: Sessions, *, allowed: bool
    ) -> None:
        self._db = db
        self._passwords = passwords
        self._sessions = sessions
        self._allowed = allowed

    def check(self, password: str) -> None:
        """Raise `WeakPassword`, or `Forbidden` where passwords cannot be changed."""
        if not self._allowed:
            raise Forbidden("Passwords cannot be changed on this server")
        self._passwords.check_strength(password)

    async def apply(self, caller: Caller, password: str, *, logout_devices: bool) -> None:
        """Give the caller a password that was checked; log out their other devices if asked to."""
        password_hash = await self._passwords.hash(password)
        await self._db.run(set_password_hash, caller.user_id, password_hash)
        await self._db.run(delete_login_tokens_of, caller.user_id)
        if logout_devices:
            await self._sessions.close_all(caller.user_id, but=caller)
