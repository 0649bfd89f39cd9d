"""Changes of devices and cross-signing keys of remote users, received from their servers.

An EDU is for a user of the server that sent it. One that cannot be read still says that something
changed, so the user's list is fetched.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from homeserver.encryption.remote.remote_list_updates import RemoteListUpdates
from homeserver.protocol.encryption.remote_keys import (
    DeviceUpdate,
    InvalidKeys,
    parse_device_update,
    parse_signing_key_update,
)
from homeserver.protocol.errors import Unavailable
from homeserver.protocol.identifiers import is_valid_user_id
from homeserver.storage.database.database import DatabaseUnavailable


class DeviceListEdus:
    """Receives EDUs about device lists."""

    def __init__(self, updates: RemoteListUpdates) -> None:
        self._updates = updates

    async def receive_device(self, origin: str, content: Mapping[str, Any]) -> None:
        """Receive the change of a device, or its deletion. Raises `Unavailable`."""
        user_id = _user_of(origin, content)
        if user_id is None:
            return
        update: DeviceUpdate | None = None
        with suppress(InvalidKeys):
            update = parse_device_update(user_id, content)
        with _database_needed():
            await self._updates.device_changed(user_id, update)

    async def receive_signing_key(self, origin: str, content: Mapping[str, Any]) -> None:
        """Receive new cross-signing keys. Raises `Unavailable`."""
        user_id = _user_of(origin, content)
        if user_id is None:
            return
        keys: Mapping[str, bytes] | None = None
        with suppress(InvalidKeys):
            keys = parse_signing_key_update(user_id, content)
        with _database_needed():
            await self._updates.cross_signing_changed(user_id, keys)


@contextmanager
def _database_needed() -> Iterator[None]:
    """Refuse what cannot be stored, so that the other server sends it again."""
    try:
        yield
    except DatabaseUnavailable as error:
        raise Unavailable("The database is unavailable") from error


def _user_of(origin: str, content: Mapping[str, Any]) -> str | None:
    """The user of an EDU, if it is one of the server that sent it."""
    user_id = content.get("user_id")
    if not isinstance(user_id, str) or not is_valid_user_id(user_id):
        return None
    return user_id if user_id.partition(":")[2] == origin else None
