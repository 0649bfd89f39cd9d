"""The port through which `Memberships` acts on rooms that this server is not in.

Federation implements it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import StoredEvent


class RemoteMembershipsPort(Protocol):
    """Changes memberships of local users through other servers, and returns the member events.

    All methods raise errors for clients, as `MatrixError`.
    """

    async def join(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> StoredEvent:
        """Join a room through one of these servers."""

    async def knock(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> StoredEvent:
        """Knock on a room through one of these servers."""

    async def leave(
        self, user_id: str, room_id: str, servers: Sequence[str], content: Mapping[str, Any]
    ) -> StoredEvent:
        """Reject an invite, or withdraw a knock."""

    async def sign_invite(self, event: Event, stripped: Sequence[Mapping[str, Any]]) -> Event:
        """The same invite, with the signature of the invited user's server."""
