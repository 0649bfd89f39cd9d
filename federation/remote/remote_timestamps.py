"""Events by timestamp, from the parts of a room's history that only other servers have.

The servers with the most members in the room are asked in turn for the event closest to the time.
The event that they name is fetched and received as history of the room, with the state before it;
between it and the rest of the history a gap remains, which is filled when a user reads on there.

Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid
"""

from typing import Annotated

import msgspec
from twisted.logger import Logger

from federation.paths import V1, path_of
from federation.receiving.event_fetcher import EventFetcher
from federation.sending.room_servers import likely_servers
from federation.transport.client import FederationClient
from federation.transport.errors import FederationError
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.timestamps import TimestampRequest
from homeserver.rooms.inbound.event_checks import EventsMissing
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room

MAX_SERVERS = 3  # asked in turn
TIMEOUT_SECONDS = 10.0  # a user waits
MAX_RESPONSE_BYTES = 65_536  # bytes

log = Logger()


class TimestampResponse(msgspec.Struct):
    """The event that another server found."""

    event_id: Annotated[str, msgspec.Meta(max_length=255)]
    origin_server_ts: int


class RemoteTimestamps:
    """Finds events by timestamp on other servers, and stores them."""

    def __init__(
        self, rooms: RoomRegistry, client: FederationClient, fetcher: EventFetcher
    ) -> None:
        self._rooms = rooms
        self._client = client
        self._fetcher = fetcher

    async def find(
        self, room: Room, moment: TimestampRequest, closer_than: int | None
    ) -> StoredEvent | None:
        """An event, now stored here, that is closer to the requested time than `closer_than`."""
        for server in likely_servers(room, self._rooms.local_server.server_name, MAX_SERVERS):
            try:
                named = await self._ask(server, room, moment)
                if not moment.is_closer(named.origin_server_ts, closer_than):
                    continue
                stored = await self._fetch(server, room, named.event_id)
            except (FederationError, EventsMissing) as error:
                log.info(
                    "remote timestamp_to_event failed for {room}: {error}",
                    room=room.room_id,
                    error=error,
                )
                continue
            # The timestamp of the event itself decides.
            if stored is not None and moment.is_closer(stored.event.origin_server_ts, closer_than):
                return stored
        return None

    async def _ask(self, server: str, room: Room, moment: TimestampRequest) -> TimestampResponse:
        response: TimestampResponse = await self._client.get(
            server,
            path_of(f"{V1}/timestamp_to_event", room.room_id),
            query={"ts": str(moment.timestamp), "dir": "b" if moment.backwards else "f"},
            response_type=TimestampResponse,
            timeout=TIMEOUT_SECONDS,
            max_response=MAX_RESPONSE_BYTES,
        )
        return response

    async def _fetch(self, server: str, room: Room, event_id: str) -> StoredEvent | None:
        """The event, if it is available and becomes part of the room's history."""
        async with self._rooms.writing(room.room_id) as writer:
            events = await self._fetcher.fetch_events(server, writer, [event_id])
            if not events:
                return None
            received = await self._fetcher.receive_backfilled(server, writer, events[0])
            if received.done is not None:
                await received.done
        return None if received.stored.position is None else received.stored
