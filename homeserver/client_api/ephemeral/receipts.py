"""Receipts over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#receipts
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.rooms.ephemeral.read_markers import ReadMarkers
from homeserver.web.routes import Route


class PostReceipt(msgspec.Struct):
    # `Any`, since a wrong type is M_INVALID_PARAM here, not M_BAD_JSON.
    thread_id: Any = msgspec.UNSET


class ReceiptsApi:
    def __init__(self, markers: ReadMarkers) -> None:
        self._markers = markers

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/rooms/{room_id}/receipt/{receipt_type}/{event_id}"
        return [Route("POST", path, self.post_receipt, limit="ephemeral")]

    async def post_receipt(
        self, caller: Requester, room_id: str, receipt_type: str, event_id: str, body: PostReceipt
    ) -> None:
        """Mark a thread or the whole room as read up to an event."""
        await self._markers.mark(caller, room_id, receipt_type, event_id, body.thread_id)
