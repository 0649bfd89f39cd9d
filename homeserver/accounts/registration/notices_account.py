"""The account that sends server notices: it has no log-in, and is created when first needed.

Spec: https://spec.matrix.org/v1.19/client-server-api/#server-notices
"""

from twisted.internet.defer import DeferredLock

from homeserver.accounts.registration.registration import NewUser, Registration
from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.profiles import DISPLAYNAME, Profiles
from homeserver.config.settings import ServerNoticeSettings
from homeserver.protocol.errors import NotFound, UserInUse
from homeserver.storage.accounts.users import User, find_user
from homeserver.storage.database.database import Database

USER_TYPE = "server_notices"


def notices_user_id(settings: ServerNoticeSettings, server_name: str) -> str | None:
    """The user id of the account; `None` where the server sends no notices."""
    return None if settings.user is None else f"@{settings.user}:{server_name}"


class NoticesAccount:
    """The account of server notices. `user_id` is `None` where the server sends none."""

    def __init__(
        self,
        settings: ServerNoticeSettings,
        server_name: str,
        db: Database,
        registration: Registration,
        profiles: Profiles,
    ) -> None:
        self.user_id = notices_user_id(settings, server_name)
        self._settings = settings
        self._db = db
        self._registration = registration
        self._profiles = profiles
        self._lock = DeferredLock()

    async def get(self) -> Requester:
        """The account as a requester, created if it does not exist.

        Raises `NotFound` where the server sends no notices, `UserInUse` where a person has the
        account.
        """
        if self.user_id is None:
            raise NotFound("This server sends no notices")
        # Two concurrent callers must not both create it.
        await self._lock.acquire()
        try:
            user = await self.find(self.user_id)
            if user is None:
                await self._make(self.user_id)
            elif user.user_type != USER_TYPE:
                raise UserInUse(f"{self.user_id} is the account of a person")
        finally:
            self._lock.release()
        return Requester(self.user_id, None)

    async def _make(self, user_id: str) -> None:
        await self._registration.register(NewUser(self._settings.user, user_type=USER_TYPE), None)
        await self._profiles.set_field(user_id, DISPLAYNAME, self._settings.display_name)

    async def find(self, user_id: str) -> User | None:
        """Any account of this server, or `None`."""
        return await self._db.run(find_user, user_id)
