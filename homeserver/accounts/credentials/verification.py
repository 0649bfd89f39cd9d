"""The verification of passwords and login tokens, which identify a user.

A wrong password and an unknown user get the same response, after the same time. Attempts are
limited for each account, independent of the addresses that they come from.

Spec: https://spec.matrix.org/v1.19/client-server-api/#legacy-login
"""

from collections.abc import Callable

from homeserver.accounts.credentials.passwords import Passwords
from homeserver.accounts.sessions.secret_tokens import new_token, token_hash
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import Forbidden, UserLocked
from homeserver.storage.accounts.login_tokens import insert_login_token, take_login_token
from homeserver.storage.accounts.users import find_user, set_password_hash
from homeserver.storage.database.database import Database

WRONG = "Invalid username or password"


class PasswordAndTokenVerifier:
    """Finds the user of the credentials with which a client logs in.

    `check_limit(user_id)` counts an attempt with a password; it raises `LimitExceeded`.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        passwords: Passwords,
        token_lifetime: int,
        check_limit: Callable[[str], None],
    ) -> None:
        self.token_life_ms = token_lifetime * 1000
        self._db = db
        self._clock = clock
        self._passwords = passwords
        self._check_limit = check_limit

    async def check_password(self, user_id: str, password: str) -> None:
        """Raise `Forbidden` unless this is the user's password, and `UserLocked` for a locked user.

        Raises `LimitExceeded` after too many attempts for this account, right or wrong.
        """
        self._check_limit(user_id)
        user = await self._db.run(find_user, user_id)
        password_hash = user.password_hash if user and not user.is_deactivated else None
        if not await self._passwords.matches(password_hash, password) or user is None:
            raise Forbidden(WRONG)
        if user.is_locked:
            raise UserLocked("This account has been locked")
        if password_hash and self._passwords.is_outdated(password_hash):
            await self._db.run(set_password_hash, user_id, await self._passwords.hash(password))

    async def issue_token(self, user_id: str) -> str:
        """A token with which another client can log in as this user, once, until it expires."""
        token = new_token()
        expires_ms = now_ms(self._clock) + self.token_life_ms
        await self._db.run(insert_login_token, token_hash(token), user_id, expires_ms)
        return token

    async def redeem_token(self, token: str) -> str:
        """The user who issued a login token, which is used up now. Raises `Forbidden`."""
        user_id = await self._db.run(take_login_token, token_hash(token), now_ms(self._clock))
        user = None if user_id is None else await self._db.run(find_user, user_id)
        if user is None or user.is_deactivated:
            raise Forbidden("The login token is not valid")
        if user.is_locked:
            raise UserLocked("This account has been locked")
        return user.user_id
