"""Server-side key backups over the API.

Suspended users may use all of it, as the specification requires.

Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.encryption.backed_up_keys import BackedUpKeys, KeyCount
from homeserver.encryption.key_backups import KeyBackups
from homeserver.protocol.encryption.key_backup_rules import KeyBackupData
from homeserver.protocol.errors import InvalidParam
from homeserver.storage.encryption.backed_up_keys import BackedUpKey
from homeserver.storage.encryption.key_backups import KeyBackup
from homeserver.web.routes import Route, Streamed

VERSIONS = "/_matrix/client/v3/room_keys/version"
VERSION = f"{VERSIONS}/{{version}}"
KEYS = "/_matrix/client/v3/room_keys/keys"
OF_ROOM = f"{KEYS}/{{room_id}}"
OF_SESSION = f"{OF_ROOM}/{{session_id}}"

Pages = AsyncGenerator[list[BackedUpKey], None]


class BackupConfiguration(msgspec.Struct):
    algorithm: str
    auth_data: msgspec.Raw  # opaque


class BackupUpdate(BackupConfiguration):
    version: str | None = None


class InBackup(msgspec.Struct):
    version: str


class RoomKeyBackup(msgspec.Struct):
    sessions: dict[str, KeyBackupData]


class RoomsKeyBackup(msgspec.Struct):
    rooms: dict[str, RoomKeyBackup]


class KeyBackupApi:
    def __init__(self, backups: KeyBackups, keys: BackedUpKeys) -> None:
        self._backups = backups
        self._keys = keys

    def routes(self) -> list[Route]:
        # A new backup gets all keys of a client, in requests of about a hundred.
        upload = "keys"
        return [
            Route("POST", VERSIONS, self.post_room_keys_version, limit="settings"),
            Route("GET", VERSIONS, self.get_room_keys_version_current, limit="lookup"),
            Route("GET", VERSION, self.get_room_keys_version, limit="lookup"),
            Route("PUT", VERSION, self.put_room_keys_version, limit="settings"),
            Route("DELETE", VERSION, self.delete_room_keys_version, limit="settings"),
            Route("PUT", KEYS, self.put_room_keys, limit=upload),
            Route("PUT", OF_ROOM, self.put_room_keys_by_room_id, limit=upload),
            Route("PUT", OF_SESSION, self.put_room_key_by_session_id, limit=upload),
            Route("GET", KEYS, self.get_room_keys, limit="lookup", cancellable=True),
            Route("GET", OF_ROOM, self.get_room_keys_by_room_id, limit="lookup", cancellable=True),
            Route("GET", OF_SESSION, self.get_room_key_by_session_id, limit="lookup"),
            Route("DELETE", KEYS, self.delete_room_keys, limit=upload),
            Route("DELETE", OF_ROOM, self.delete_room_keys_by_room_id, limit=upload),
            Route("DELETE", OF_SESSION, self.delete_room_key_by_session_id, limit=upload),
        ]

    async def post_room_keys_version(
        self, caller: Requester, body: BackupConfiguration
    ) -> dict[str, str]:
        """Create a backup."""
        auth_data = bytes(body.auth_data)
        return {"version": await self._backups.create(caller.user_id, body.algorithm, auth_data)}

    async def get_room_keys_version_current(self, caller: Requester) -> dict[str, Any]:
        """The caller's current backup."""
        return _described(await self._backups.current(caller.user_id))

    async def get_room_keys_version(self, caller: Requester, version: str) -> dict[str, Any]:
        """One of the caller's backups."""
        return _described(await self._backups.get(caller.user_id, version))

    async def put_room_keys_version(
        self, caller: Requester, version: str, body: BackupUpdate
    ) -> None:
        """Replace the `auth_data` of a backup."""
        if body.version not in (None, version):
            raise InvalidParam("Version does not match")
        await self._backups.update(caller.user_id, version, body.algorithm, bytes(body.auth_data))

    async def delete_room_keys_version(self, caller: Requester, version: str) -> None:
        """Delete a backup with its keys."""
        await self._backups.delete(caller.user_id, version)

    async def put_room_keys(
        self, caller: Requester, query: InBackup, body: RoomsKeyBackup
    ) -> KeyCount:
        """Add keys of several rooms."""
        rooms = {room_id: of_room.sessions for room_id, of_room in body.rooms.items()}
        return await self._keys.upload(caller.user_id, query.version, rooms)

    async def put_room_keys_by_room_id(
        self, caller: Requester, query: InBackup, room_id: str, body: RoomKeyBackup
    ) -> KeyCount:
        """Add keys of one room."""
        rooms = {room_id: body.sessions}
        return await self._keys.upload(caller.user_id, query.version, rooms)

    async def put_room_key_by_session_id(
        self,
        caller: Requester,
        query: InBackup,
        room_id: str,
        session_id: str,
        body: KeyBackupData,
    ) -> KeyCount:
        """Add one key."""
        rooms = {room_id: {session_id: body}}
        return await self._keys.upload(caller.user_id, query.version, rooms)

    def get_room_keys(self, caller: Requester, query: InBackup) -> Streamed:
        """All keys of a backup."""
        return Streamed(_rooms_json(self._keys.pages(caller.user_id, query.version)))

    def get_room_keys_by_room_id(
        self, caller: Requester, query: InBackup, room_id: str
    ) -> Streamed:
        """The keys of one room."""
        return Streamed(_room_json(self._keys.pages(caller.user_id, query.version, room_id)))

    async def get_room_key_by_session_id(
        self, caller: Requester, query: InBackup, room_id: str, session_id: str
    ) -> msgspec.Raw:
        """One key."""
        key = await self._keys.find(caller.user_id, query.version, room_id, session_id)
        return msgspec.Raw(_key_json(key))

    async def delete_room_keys(self, caller: Requester, query: InBackup) -> KeyCount:
        """Delete all keys of a backup."""
        return await self._keys.delete(caller.user_id, query.version)

    async def delete_room_keys_by_room_id(
        self, caller: Requester, query: InBackup, room_id: str
    ) -> KeyCount:
        """Delete the keys of one room."""
        return await self._keys.delete(caller.user_id, query.version, room_id)

    async def delete_room_key_by_session_id(
        self, caller: Requester, query: InBackup, room_id: str, session_id: str
    ) -> KeyCount:
        """Delete one key."""
        return await self._keys.delete(caller.user_id, query.version, room_id, session_id)


def _described(backup: KeyBackup) -> dict[str, Any]:
    return {
        "algorithm": backup.algorithm,
        "auth_data": msgspec.Raw(backup.auth_data),
        "count": backup.key_count,
        "etag": str(backup.etag),
        "version": str(backup.version),
    }


async def _rooms_json(pages: Pages) -> AsyncGenerator[bytes, None]:
    """The keys as `{"rooms": {room id: {"sessions": {session id: key}}}}`, in parts."""
    room_id, before = None, b'{"rooms":{'
    async with aclosing(pages):
        async for page in pages:
            parts: list[bytes] = []
            for key in page:
                if key.room_id == room_id:
                    parts.append(b",")
                else:
                    between = before if room_id is None else b"}},"
                    room_id = key.room_id
                    parts += (between, msgspec.json.encode(room_id), b':{"sessions":{')
                parts.append(_member_json(key))
            yield b"".join(parts)
    yield before + b"}}" if room_id is None else b"}}}}"


async def _room_json(pages: Pages) -> AsyncGenerator[bytes, None]:
    """The keys of one room as `{"sessions": {session id: key}}`, in parts."""
    before = b'{"sessions":{'
    async with aclosing(pages):
        async for page in pages:
            yield before + b",".join(map(_member_json, page))
            before = b","
    yield b"}}" if before == b"," else before + b"}}"


def _member_json(key: BackedUpKey) -> bytes:
    return b"%s:%s" % (msgspec.json.encode(key.session_id), _key_json(key))


def _key_json(key: BackedUpKey) -> bytes:
    return b'{"first_message_index":%d,"forwarded_count":%d,"is_verified":%s,"session_data":%s}' % (
        key.first_message_index,
        key.forwarded_count,
        b"true" if key.is_verified else b"false",
        key.session_data,
    )
