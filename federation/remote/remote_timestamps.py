"""Jumping to a date in a part of a room's history that only other servers have.

Those with the most members in the room are asked in turn for the event that is the closest to the
time. The one that they name is fetched and received as part of the room's past, with the state
before it; what lies between it and the rest of the history stays a gap, which is filled when
somebody reads on from there.

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

MAX_SERVERS = 3  # that are asked in turn
TIMEOUT_SECONDS = 10.0  # a user waits
MAX_RESPONSE_BYTES = 65_536  # bytes

log = Logger()


class TimestampResponse(msgspec.Struct):
    """The event that another server has found."""

    event_id: Annotated[str, msgspec.Meta(max_length=255)]
    origin_server_ts: int


class RemoteTimestamps:
    """Finds events by their timestamps on other servers, and keeps them here."""

    def __init__(
        self, rooms: RoomRegistry, client: FederationClient, missing: EventFetcher
    ) -> None:
        self._rooms = rooms
        self._client = client
        self._missing = missing

    async def find(
        self, room: Room, moment: TimestampRequest, closer_than: int | None
    ) -> StoredEvent | None:
        """An event of the room that is closer to the moment than a timestamp, now kept here."""
        for server in likely_servers(room, self._rooms.local_server.server_name, MAX_SERVERS):
            try:
                named = await self._ask(server, room, moment)
                if not moment.is_closer(named.origin_server_ts, closer_than):
                    continue
                stored = await self._fetch(server, room, named.event_id)
            except (FederationError, EventsMissing) as error:
                log.info("no event of {room} by its time: {error}", room=room.room_id, error=error)
                continue
            # What the event itself says counts.
            if stored is not None and moment.is_closer(stored.event.origin_server_ts, closer_than):
                return stored
        return None

    async def _ask(self, server: str, room: Room, moment: TimestampRequest) -> TimestampResponse:
        answer: TimestampResponse = await self._client.get(
            server,
            path_of(f"{V1}/timestamp_to_event", room.room_id),
            query={"ts": str(moment.timestamp), "dir": "b" if moment.backwards else "f"},
            answer=TimestampResponse,
            timeout=TIMEOUT_SECONDS,
            max_answer=MAX_RESPONSE_BYTES,
        )
        return answer

    async def _fetch(self, server: str, room: Room, event_id: str) -> StoredEvent | None:
        """The event, if it can be had and stands in the room's history."""
        async with self._rooms.writing(room.room_id) as writer:
            events = await self._missing.fetch_events(server, writer, [event_id])
            if not events:
                return None
            received = await self._missing.receive_backfilled(server, writer, events[0])
            if received.done is not None:
                await received.done
        return None if received.stored.position is None else received.stored
