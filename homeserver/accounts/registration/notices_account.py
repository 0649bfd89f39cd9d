"""The account that speaks for the server: nobody logs in to it, and it is made when first needed.

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
    """Knows the account. `user_id` is `None` where the server sends no notices."""

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
        """The account as one that acts.

        Raises `NotFound` where there are no notices, `UserInUse` where the account is a person's.
        """
        if self.user_id is None:
            raise NotFound("This server sends no notices")
        # Two that need it first at the same time must not both make it.
        await self._lock.acquire()
        try:
            user = await self.find(self.user_id)
            if user is None:
                await self._make(self.user_id)
            elif user.user_type != USER_TYPE:
                raise UserInUse(f"{self.user_id} is somebody's account")
        finally:
            self._lock.release()
        return Requester(self.user_id, None)

    async def _make(self, user_id: str) -> None:
        await self._registration.register(NewUser(self._settings.user, user_type=USER_TYPE), None)
        await self._profiles.set_field(user_id, DISPLAYNAME, self._settings.display_name)

    async def find(self, user_id: str) -> User | None:
        """Any account of this server."""
        return await self._db.run(find_user, user_id)
