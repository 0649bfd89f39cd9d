"""Snapshots of rooms over the API, for room previews and old clients.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync
"""

from typing import Annotated, Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.presence.tracker import PresenceTracker
from homeserver.sync.snapshots import Snapshots
from homeserver.web.routes import Auth, Route

INITIAL_SYNC = "/_matrix/client/v3/initialSync"
ROOM = "/_matrix/client/v3/rooms/{room_id}/initialSync"

Limit = Annotated[int, msgspec.Meta(ge=0)]


class InitialSyncQuery(msgspec.Struct):
    """The number of messages for each room, and whether to include rooms that the user left."""

    limit: Limit | None = None
    archived: bool = False


class RoomInitialSyncQuery(msgspec.Struct):
    """The number of messages."""

    limit: Limit | None = None


class InitialSyncApi:
    def __init__(self, snapshots: Snapshots, presence: PresenceTracker) -> None:
        self._snapshots = snapshots
        self._presence = presence

    def routes(self) -> list[Route]:
        room_sync = self.room_initial_sync
        return [
            Route("GET", INITIAL_SYNC, self.initial_sync, cancellable=True),
            Route("GET", ROOM, room_sync, Auth.GUEST, cancellable=True),
        ]

    async def initial_sync(self, caller: Requester, query: InitialSyncQuery) -> dict[str, Any]:
        """All rooms of the caller as they are now."""
        device = (caller.user_id, caller.device_id, None)
        await self._presence.sync_began(*device)
        try:
            return await self._snapshots.of_user(caller, query.limit, archived=query.archived)
        finally:
            self._presence.sync_ended(*device)

    async def room_initial_sync(
        self, caller: Requester, room_id: str, query: RoomInitialSyncQuery
    ) -> dict[str, Any]:
        """One room as it is now."""
        return await self._snapshots.of_room(caller, room_id, query.limit)
