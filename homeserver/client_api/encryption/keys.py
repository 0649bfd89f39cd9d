"""Keys of devices over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#key-management-api
"""

from typing import Annotated, Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.encryption.key_queries import KeyQueries
from homeserver.encryption.key_uploads import KeyUploads
from homeserver.protocol.proposals.unstable_names import UNSTABLE_FALLBACK_KEYS
from homeserver.streams.sync_tokens import parse_sync_token
from homeserver.sync.engine import SyncEngine
from homeserver.web.routes import Route

KEYS = "/_matrix/client/v3/keys"
MAX_USERS = 10_000  # of one query
MAX_CLAIM_USERS = 2_000


class UploadKeys(msgspec.Struct):
    """The keys that a device uploads; each kind may be absent."""

    device_keys: dict[str, Any] | None = None
    one_time_keys: dict[str, Any] | None = None
    fallback_keys: dict[str, Any] | None = None
    unstable_fallback_keys: dict[str, Any] | None = msgspec.field(
        name=UNSTABLE_FALLBACK_KEYS, default=None
    )


class QueryKeys(msgspec.Struct):
    """Device ids by user id; an empty list stands for all devices. `timeout` is in milliseconds."""

    device_keys: Annotated[dict[str, list[str]], msgspec.Meta(max_length=MAX_USERS)]
    timeout: int = 10_000


class ClaimKeys(msgspec.Struct):
    """Algorithms by user id and device id. `timeout` is in milliseconds."""

    one_time_keys: Annotated[dict[str, dict[str, str]], msgspec.Meta(max_length=MAX_CLAIM_USERS)]
    timeout: int = 10_000


class ChangesQuery(msgspec.Struct):
    """Two tokens; the range is always read up to now."""

    from_token: str = msgspec.field(name="from")
    to: str | None = None


class EncryptionKeysApi:
    def __init__(self, uploads: KeyUploads, queries: KeyQueries, engine: SyncEngine) -> None:
        self._uploads = uploads
        self._queries = queries
        self._engine = engine

    def routes(self) -> list[Route]:
        return [
            Route("POST", f"{KEYS}/upload", self.upload_keys, limit="keys"),
            Route("POST", f"{KEYS}/query", self.query_keys, limit="lookup"),
            Route("POST", f"{KEYS}/claim", self.claim_keys, limit="keys"),
            Route(
                "GET", f"{KEYS}/changes", self.get_keys_changes, limit="lookup", cancellable=True
            ),
        ]

    async def upload_keys(self, caller: Requester, body: UploadKeys) -> dict[str, Any]:
        """Store keys of the caller's device."""
        fallback = body.fallback_keys or body.unstable_fallback_keys
        counts = await self._uploads.upload(
            caller, body.device_keys, body.one_time_keys or {}, fallback or {}
        )
        return {"one_time_key_counts": counts}

    async def query_keys(self, caller: Requester, body: QueryKeys) -> msgspec.Raw:
        """The devices and keys of users."""
        found = await self._queries.query(caller.user_id, body.device_keys, body.timeout / 1_000)
        return msgspec.Raw(found.encode())

    async def claim_keys(self, caller: Requester, body: ClaimKeys) -> dict[str, Any]:
        """One key of each device that is named."""
        claimed = await self._queries.claim(
            caller.user_id, body.one_time_keys, body.timeout / 1_000
        )
        return {"failures": claimed.failures, "one_time_keys": claimed.keys}

    async def get_keys_changes(self, caller: Requester, query: ChangesQuery) -> dict[str, Any]:
        """The users whose devices changed since a token."""
        update = await self._engine.device_list_update(
            caller.user_id, parse_sync_token(query.from_token)
        )
        return {"changed": sorted(update.changed), "left": sorted(update.left)}
