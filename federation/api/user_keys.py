"""Keys of local users for other servers: finding and claiming them.

Any server may ask, as in the specification: a message may be for a user with whom no room is shared
yet. Users of other servers, and users who do not exist, are left out. User-signing keys, and the
signatures made with them, are for their own user only.

Spec: https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption
"""

from typing import Annotated, Any

import msgspec

from federation.paths import V1
from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.key_queries import KeyQueries, QueriedKeys, add_found
from homeserver.encryption.user_devices import object_of
from homeserver.rooms.events.local_server import LocalServer
from homeserver.storage.accounts.users import users_among
from homeserver.storage.database.database import Database
from homeserver.web.routes import Auth, Route

MAX_USERS = 10_000  # of one query
MAX_CLAIM_USERS = 2_000
MAX_BODY = 2 * 1_048_576  # bytes


class QueryUserKeys(msgspec.Struct):
    """Device ids by user id; an empty list stands for all devices."""

    device_keys: Annotated[dict[str, list[str]], msgspec.Meta(max_length=MAX_USERS)]


class ClaimUserKeys(msgspec.Struct):
    """Algorithms by user id and device id."""

    one_time_keys: Annotated[dict[str, dict[str, str]], msgspec.Meta(max_length=MAX_CLAIM_USERS)]


class UserKeysApi:
    def __init__(
        self,
        db: Database,
        directory: DeviceDirectory,
        queries: KeyQueries,
        local_server: LocalServer,
    ) -> None:
        self._db = db
        self._directory = directory
        self._queries = queries
        self._is_local = local_server.is_local

    def routes(self) -> list[Route]:
        keys = f"{V1}/user/keys"
        query, claim = self.query_user_encryption_keys, self.claim_user_encryption_keys
        return [
            Route("POST", f"{keys}/query", query, Auth.SERVER, max_body=MAX_BODY),
            Route("POST", f"{keys}/claim", claim, Auth.SERVER, max_body=MAX_BODY),
        ]

    async def query_user_encryption_keys(self, body: QueryUserKeys) -> msgspec.Raw:
        """The devices and public keys of local users."""
        local = [user_id for user_id in body.device_keys if self._is_local(user_id)]
        existing = await self._db.run(users_among, local)
        found = QueriedKeys()
        async for known in self._directory.in_parts(existing):
            for user_id, devices in known.items():
                add_found(found, user_id, devices, body.device_keys[user_id])
        members = {
            "device_keys": object_of(found.device_keys),
            "master_keys": object_of(found.master_keys),
            "self_signing_keys": object_of(found.self_signing_keys),
        }
        return msgspec.Raw(object_of(members))

    async def claim_user_encryption_keys(self, body: ClaimUserKeys) -> dict[str, Any]:
        """One key of each device of a local user that is named."""
        return {"one_time_keys": await self._queries.claim_local(body.one_time_keys)}
