"""Jumping to a date over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
"""

from typing import Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.rooms.history.timestamps import TimestampRequest, Timestamps
from homeserver.web.routes import Route

PATH = "/_matrix/client/v1/rooms/{room_id}/timestamp_to_event"


class TimestampQuery(msgspec.Struct):
    """The time, in ms since the epoch, and the direction of the search."""

    timestamp: int = msgspec.field(name="ts")
    direction: Literal["b", "f"] = msgspec.field(name="dir")


class TimestampApi:
    def __init__(self, timestamps: Timestamps) -> None:
        self._timestamps = timestamps

    def routes(self) -> list[Route]:
        return [Route("GET", PATH, self.get_event_by_timestamp, limit="search", cancellable=True)]

    async def get_event_by_timestamp(
        self, caller: Requester, room_id: str, query: TimestampQuery
    ) -> dict[str, str | int]:
        """The event that is closest to a time."""
        request = TimestampRequest(query.timestamp, backwards=query.direction == "b")
        event = (await self._timestamps.closest(caller.user_id, room_id, request)).event
        return {"event_id": event.event_id, "origin_server_ts": event.origin_server_ts}
