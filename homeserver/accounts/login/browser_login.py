"""Signing in to the pages of this server by password.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-api
"""

from homeserver.accounts.browser_sessions.browser_sessions import BrowserRequest, BrowserSessions
from homeserver.accounts.credentials.user_identifier import UserIdentifier, UserIdentifiers
from homeserver.accounts.credentials.verification import PasswordAndTokenVerifier
from homeserver.protocol.errors import Forbidden, InvalidParam
from homeserver.protocol.third_party_ids.addresses import EMAIL

MAX_NAME = 300  # characters


class BrowserLogin:
    """Opens sessions of browsers for users who know their password."""

    def __init__(
        self,
        identifiers: UserIdentifiers,
        credentials: PasswordAndTokenVerifier,
        sessions: BrowserSessions,
        *,
        with_password: bool,
    ) -> None:
        self._identifiers = identifiers
        self._credentials = credentials
        self._sessions = sessions
        self.with_password = with_password

    async def sign_in(self, name: str, password: str, request: BrowserRequest) -> str:
        """Sign a user in, by the user name, the user id or the e-mail address.

        Returns the value of the header `Set-Cookie`. Raises `InvalidParam`, `Forbidden`,
        `UserLocked` and `LimitExceeded`.
        """
        if not self.with_password:
            raise Forbidden("This server does not support log-in with a password")
        user_id = await self._identifiers.find(_identifier_of(name.strip()))
        await self._credentials.check_password(user_id, password)
        return await self._sessions.open(user_id, request)


def _identifier_of(name: str) -> UserIdentifier:
    if not name or len(name) > MAX_NAME:
        raise InvalidParam("Enter your user name")
    if "@" in name[1:]:
        return UserIdentifier(type="m.id.thirdparty", medium=EMAIL, address=name)
    return UserIdentifier(type="m.id.user", user=name)
