"""Backfill: fetches the history of a room from before our join from other servers.

The servers with the most members in the room are asked in turn for the events before the backward
extremities that a reader has reached. These are checked like all events, by the state before
them: that of the oldest is fetched too, and each later state follows from it.

Spec: https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from collections.abc import Sequence

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from federation.paths import V1, path_of
from federation.receiving.event_fetcher import EventFetcher, PdusResponse
from federation.receiving.pdu_checks import PduChecks
from federation.sending.room_servers import likely_servers
from federation.transport.client import FederationClient
from federation.transport.errors import FederationError
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.protocol.event_graph import in_graph_order
from homeserver.protocol.events import Event
from homeserver.rooms.history.timeline_segments import Depths
from homeserver.rooms.inbound.event_checks import EventsMissing
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.writer import RoomWriter

MAX_SERVERS = 5  # asked in turn
MAX_EXTREMITIES = 20  # named in one request
MAX_EVENTS = 100
TIMEOUT_SECONDS = 20.0  # a user waits

log = Logger()


class Backfill:
    """Fetches the events before backward extremities."""

    def __init__(
        self,
        rooms: RoomRegistry,
        client: FederationClient,
        checks: PduChecks,
        fetcher: EventFetcher,
    ) -> None:
        self._rooms = rooms
        self._client = client
        self._checks = checks
        self._fetcher = fetcher
        self._filling: KeyedLocks[int] = KeyedLocks()

    async def fill(self, room: Room, depths: Depths, limit: int) -> bool:
        """Fetch events before the backward extremities at these depths; return whether any came."""
        is_running = self._filling.is_held(room.room_nid)
        async with self._filling.hold(room.room_nid):
            if is_running:
                return True
            return await self._fill(room, depths, min(limit, MAX_EVENTS))

    async def _fill(self, room: Room, depths: Depths, limit: int) -> bool:
        least, greatest = depths
        extremities = [
            event_id
            for event_id, at in room.backward_extremities.items()
            if least <= at <= greatest
        ]
        extremities.sort(key=room.backward_extremities.__getitem__, reverse=True)
        extremities = extremities[:MAX_EXTREMITIES]
        for server in likely_servers(room, self._rooms.local_server.server_name, MAX_SERVERS):
            try:
                pdus = await self._ask(server, room, extremities, limit)
                events = await self._checks.valid_events(room.version, room.room_id, pdus)
                if await self._receive_all(server, room, events):
                    return True
            except FederationError as error:
                log.info(
                    "could not fetch history of {room}: {error}", room=room.room_id, error=error
                )
        return False

    async def _ask(
        self, server: str, room: Room, extremities: Sequence[str], limit: int
    ) -> list[msgspec.Raw]:
        response: PdusResponse = await self._client.get(
            server,
            path_of(f"{V1}/backfill", room.room_id),
            query={"v": list(extremities), "limit": str(limit)},
            response_type=PdusResponse,
            timeout=TIMEOUT_SECONDS,
            max_response=limit * 131_072,
        )
        return response.pdus[: 2 * limit]

    async def _receive_all(self, server: str, room: Room, events: Sequence[Event]) -> bool:
        """Receive events, the oldest first; returns whether any of them is new."""
        is_any_new = False
        async with self._rooms.writing(room.room_id) as writer:
            known = await self._fetcher.find_known(writer, [event.event_id for event in events])
            done: Deferred[None] | None = None
            for event in in_graph_order(events):
                stored = known.get(event.event_id)
                if stored is not None and not stored.status.is_outlier:
                    continue
                try:
                    done = await self._receive(server, writer, event) or done
                    is_any_new = True
                except EventsMissing as error:
                    log.info("could not receive {event}: {error}", event=event, error=error)
            if done is not None:
                await done
        return is_any_new

    async def _receive(
        self, server: str, writer: RoomWriter, event: Event
    ) -> Deferred[None] | None:
        received = await self._fetcher.receive_backfilled(server, writer, event)
        return received.done
