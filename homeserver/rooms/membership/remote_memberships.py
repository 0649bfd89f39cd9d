"""What this server's users do in rooms that it is not in, as `Memberships` sees it.

Federation implements it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import StoredEvent


class RemoteMembershipsPort(Protocol):
    """Acts on behalf of users of this server, and gives the member events that come of it.

    All raise errors for users, as `MatrixError`.
    """

    async def join(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> StoredEvent:
        """Join a room by one of these servers."""

    async def knock(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> StoredEvent:
        """Knock at a room by one of these servers."""

    async def leave(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> StoredEvent:
        """Turn down an invite, or take back a knock."""

    async def sign_invite(self, event: Event, stripped: Sequence[Mapping[str, Any]]) -> Event:
        """The same invite, with the signature of the invited user's server."""
