"""The clients that have registered.

Equal registrations are one, with an id that is a digest of the metadata: so the many browsers and
phones with one client share it, and one that was deleted comes back with the same id. A client
without a session is deleted a day after it registered last; each begins a log-in by registering.
Where strangers have registered so many that there is no room, half an hour has to suffice.

Spec: https://spec.matrix.org/v1.19/client-server-api/#client-registration
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import LimitExceeded
from homeserver.protocol.oauth.client_metadata import (
    ClientMetadata,
    client_id_of,
    encode_client_metadata,
    parse_client_metadata,
)
from homeserver.protocol.oauth.errors import INVALID_CLIENT, OAuthError
from homeserver.storage.database.database import Database
from homeserver.storage.oauth.cleanup import delete_unused_oauth_clients
from homeserver.storage.oauth.clients import find_oauth_client, register_oauth_client

MAX_CLIENTS = 20_000  # registrations
MAX_CLIENT_ID = 64  # characters; those of this server are shorter
CROWDED_LIFE_MS = (
    30 * 60 * 1000
)  # without a session, where there is no room: more than a log-in takes
CLEAN_UP_SECONDS = 60.0  # at least, between two deletions for want of room
RETRY_AFTER_MS = 60_000


class RegisteredClient(msgspec.Struct, frozen=True):
    """A client, and the id with which it asks for tokens."""

    client_id: str
    metadata: ClientMetadata


class OAuthClients:
    """Registers and finds clients."""

    def __init__(self, db: Database, clock: Clock, *, max_clients: int = MAX_CLIENTS) -> None:
        self._db = db
        self._clock = clock
        self._max_clients = max_clients
        self._cleaned_up_at = float("-inf")

    async def register(self, given: Mapping[str, Any]) -> RegisteredClient:
        """Register a client by its metadata.

        Raises `OAuthError` for invalid ones, and `LimitExceeded` where there are too many clients.
        """
        metadata = parse_client_metadata(given)
        encoded = encode_client_metadata(metadata)
        client_id = client_id_of(encoded)
        if not await self._add(client_id, encoded):
            await self._make_room()
            if not await self._add(client_id, encoded):
                raise LimitExceeded(RETRY_AFTER_MS, "Too many clients have registered")
        return RegisteredClient(client_id, metadata)

    async def get(self, client_id: str) -> RegisteredClient:
        """A client by its id. Raises `OAuthError`."""
        encoded = None
        if len(client_id) <= MAX_CLIENT_ID and client_id.isascii():
            encoded = await self._db.run(find_oauth_client, client_id)
        if encoded is None:
            raise OAuthError(INVALID_CLIENT, "the client is not registered, or no longer")
        return RegisteredClient(client_id, msgspec.json.decode(encoded, type=ClientMetadata))

    async def _add(self, client_id: str, metadata: bytes) -> bool:
        is_added: bool = await self._db.run(
            register_oauth_client, client_id, metadata, now_ms(self._clock), self._max_clients
        )
        return is_added

    async def _make_room(self) -> None:
        """Delete clients without a session before their time, but not at each request."""
        now = self._clock.seconds()
        if now - self._cleaned_up_at >= CLEAN_UP_SECONDS:
            self._cleaned_up_at = now
            await self._db.run(delete_unused_oauth_clients, now_ms(self._clock) - CROWDED_LIFE_MS)
