"""Whois: the sessions of an account, and where they were last seen.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3adminwhoisuserid
"""

from homeserver.accounts.sessions.devices import Devices
from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Forbidden, NotFound
from homeserver.storage.accounts.devices import Device
from homeserver.storage.accounts.users import find_user
from homeserver.storage.database.database import Database


class WhoIs:
    """Lists a user's sessions for the user and for administrators."""

    def __init__(self, db: Database, devices: Devices) -> None:
        self._db = db
        self._devices = devices

    async def devices_of(self, caller: Requester, user_id: str) -> list[Device]:
        """The devices of a local user.

        Raises `Forbidden` unless the caller is that user or an administrator, whether the user
        exists or not, and `NotFound`.
        """
        if not caller.is_admin and caller.user_id != user_id:
            raise Forbidden("Only administrators may look up other users")
        if await self._db.run(find_user, user_id) is None:
            raise NotFound("No such user")
        return await self._devices.all_of(user_id)
