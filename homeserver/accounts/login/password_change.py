"""The replacement of an account's password.

Spec: https://spec.matrix.org/v1.19/client-server-api/#password-management
"""

from homeserver.accounts.credentials.passwords import Passwords
from homeserver.accounts.sessions.login_sessions import LoginSessions
from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Forbidden
from homeserver.storage.accounts.login_tokens import delete_login_tokens_of
from homeserver.storage.accounts.users import find_user, set_password_hash
from homeserver.storage.browser_sessions.browser_sessions import delete_browser_sessions_of
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.oauth.cleanup import delete_oauth_grants_of


class PasswordChange:
    """Replaces passwords. The callers authenticate the owner."""

    def __init__(
        self, db: Database, passwords: Passwords, sessions: LoginSessions, *, allowed: bool
    ) -> None:
        self._db = db
        self._passwords = passwords
        self._sessions = sessions
        self._allowed = allowed

    def check_allowed(self) -> None:
        """Raise `Forbidden` where passwords cannot be changed."""
        if not self._allowed:
            raise Forbidden("Passwords cannot be changed on this server")

    async def has_password(self, user_id: str) -> bool:
        """Whether a user can log in with a password, and so change it."""
        user = await self._db.run(find_user, user_id)
        return self._allowed and user is not None and user.password_hash is not None

    def check(self, password: str) -> None:
        """Raise `WeakPassword`, or `Forbidden` where passwords cannot be changed."""
        self.check_allowed()
        self._passwords.check_strength(password)

    async def apply(
        self, user_id: str, password: str, *, logout_devices: bool, but: Requester | None = None
    ) -> None:
        """Set a checked password; with `logout_devices` log out all devices `but` one.

        The user has to sign in again in all browsers.
        """
        password_hash = await self._passwords.hash(password)
        await self._db.transaction(_set_password, user_id, password_hash)
        if logout_devices:
            await self._sessions.close_all(user_id, but=but)


async def _set_password(db: Connection, user_id: str, password_hash: str) -> None:
    await set_password_hash(db, user_id, password_hash)
    await delete_login_tokens_of(db, user_id)
    await delete_browser_sessions_of(db, user_id)
    await delete_oauth_grants_of(db, user_id)
