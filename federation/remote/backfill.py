"""Backfill: asking other servers for the past of a room that this one came into later.

The servers with the most members in the room are asked in turn for what is before the gaps that a
reader has reached. What comes is judged like all events, by the state before it: that of the oldest
is asked for too, and each later one follows from it.

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

MAX_SERVERS = 5  # that are asked in turn
MAX_GAPS = 20  # that are asked for at once
MAX_EVENTS = 100
TIMEOUT_SECONDS = 20.0  # a user waits

log = Logger()


class Backfill:
    """Fills gaps in the history of rooms."""

    def __init__(
        self,
        rooms: RoomRegistry,
        client: FederationClient,
        checks: PduChecks,
        missing: EventFetcher,
    ) -> None:
        self._rooms = rooms
        self._client = client
        self._checks = checks
        self._missing = missing
        self._filling: KeyedLocks[int] = KeyedLocks()

    async def fill(self, room: Room, depths: Depths, limit: int) -> bool:
        """Ask for events before the gaps that are at these depths; whether any came."""
        is_under_way = self._filling.is_held(room.room_nid)
        async with self._filling.hold(room.room_nid):
            if is_under_way:
                return True
            return await self._fill(room, depths, min(limit, MAX_EVENTS))

    async def _fill(self, room: Room, depths: Depths, limit: int) -> bool:
        least, greatest = depths
        reached = [gap for gap, at in room.backward_extremities.items() if least <= at <= greatest]
        reached.sort(key=room.backward_extremities.__getitem__, reverse=True)
        gaps = reached[:MAX_GAPS]
        for server in likely_servers(room, self._rooms.local_server.server_name, MAX_SERVERS):
            try:
                pdus = await self._ask(server, room, gaps, limit)
                events = await self._checks.valid_events(room.version, room.room_id, pdus)
                if await self._take(server, room, events):
                    return True
            except FederationError as error:
                log.info("no history of {room}: {error}", room=room.room_id, error=error)
        return False

    async def _ask(
        self, server: str, room: Room, gaps: Sequence[str], limit: int
    ) -> list[msgspec.Raw]:
        answer: PdusResponse = await self._client.get(
            server,
            path_of(f"{V1}/backfill", room.room_id),
            query={"v": list(gaps), "limit": str(limit)},
            answer=PdusResponse,
            timeout=TIMEOUT_SECONDS,
            max_answer=limit * 131_072,
        )
        return answer.pdus[: 2 * limit]

    async def _take(self, server: str, room: Room, events: Sequence[Event]) -> bool:
        """Receive what came, the oldest first; whether any of it is new."""
        taken = False
        async with self._rooms.writing(room.room_id) as writer:
            known = await self._missing.find_known(writer, [event.event_id for event in events])
            done: Deferred[None] | None = None
            for event in in_graph_order(events):
                stored = known.get(event.event_id)
                if stored is not None and not stored.status.is_outlier:
                    continue
                try:
                    done = await self._receive(server, writer, event) or done
                    taken = True
                except EventsMissing as error:
                    log.info("{event} is left out: {error}", event=event, error=error)
            if done is not None:
                await done
        return taken

    async def _receive(
        self, server: str, writer: RoomWriter, event: Event
    ) -> Deferred[None] | None:
        received = await self._missing.receive_backfilled(server, writer, event)
        return received.done
