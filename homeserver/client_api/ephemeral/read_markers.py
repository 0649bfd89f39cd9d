"""Read markers over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#fully-read-markers
"""

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.event_types import FULLY_READ
from homeserver.rooms.ephemeral.read_markers import ReadMarkers
from homeserver.web.routes import Route


class SetReadMarker(msgspec.Struct, omit_defaults=True):
    fully_read: str | None = msgspec.field(name=FULLY_READ, default=None)
    read: str | None = msgspec.field(name="m.read", default=None)
    read_private: str | None = msgspec.field(name="m.read.private", default=None)


class ReadMarkersApi:
    def __init__(self, markers: ReadMarkers) -> None:
        self._markers = markers

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/rooms/{room_id}/read_markers"
        return [Route("POST", path, self.set_read_marker, limit="ephemeral")]

    async def set_read_marker(self, caller: Requester, room_id: str, body: SetReadMarker) -> None:
        """Move the fully read marker, and receipts with it."""
        # The members of the body, by their marker types.
        await self._markers.mark_all(caller, room_id, msgspec.to_builtins(body))
