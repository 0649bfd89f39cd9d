"""Device lists of local users for other servers.

The list and its `stream_id` belong together: the update with which it changes next follows this id.

Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid
"""

from typing import Any

from federation.paths import V1
from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.user_devices import MASTER, SELF_SIGNING
from homeserver.protocol.errors import InvalidParam, NotFound
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.rooms.events.local_server import LocalServer
from homeserver.storage.accounts.users import users_among
from homeserver.storage.database.database import Database
from homeserver.web.routes import Auth, Route

NEVER_CHANGED = 0  # the stream id of a list that has never changed


class UserDevicesApi:
    def __init__(self, db: Database, directory: DeviceDirectory, local_server: LocalServer) -> None:
        self._db = db
        self._directory = directory
        self._is_local = local_server.is_local

    def routes(self) -> list[Route]:
        path = f"{V1}/user/devices/{{user_id}}"
        return [Route("GET", path, self.get_user_devices, Auth.SERVER)]

    async def get_user_devices(self, user_id: str) -> dict[str, Any]:
        """The devices of a local user that encrypt, and the public cross-signing keys."""
        if not is_valid_user_id(user_id) or not self._is_local(user_id):
            raise InvalidParam("The user belongs to another server")
        if not await self._db.run(users_among, [user_id]):
            raise NotFound("There is no such user")
        found = await self._directory.of(user_id)
        devices = []
        for device_id, device in found.devices.items():
            if device.keys is not None:
                listed: dict[str, Any] = {"device_id": device_id, "keys": device.keys}
                if device.display_name is not None:
                    listed["device_display_name"] = device.display_name
                devices.append(listed)
        stream_id = NEVER_CHANGED if found.stream_id is None else found.stream_id
        answer: dict[str, Any] = {"user_id": user_id, "stream_id": stream_id, "devices": devices}
        for usage, name in ((MASTER, "master_key"), (SELF_SIGNING, "self_signing_key")):
            if usage in found.cross_signing:
                answer[name] = found.cross_signing[usage]
        return answer
