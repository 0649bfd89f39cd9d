"""Events and states of rooms, for the servers that are in them.

The history visibility at an event decides whether a server may see it; of an invisible event it
gets only what the event graph needs: the redacted event.

Spec: https://spec.matrix.org/v1.19/server-server-api/#retrieving-events
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from federation.api.auth_chains import AuthChains, raw_events
from federation.paths import V1
from federation.receiving.room_access import RoomAccess
from homeserver.protocol.errors import InvalidParam, NotFound, UnableDueToPartialState
from homeserver.rooms.events.imported_events import is_imported
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.event_ancestors import EventAncestors
from homeserver.rooms.history.timestamps import TimestampRequest, Timestamps
from homeserver.rooms.history.visibility import Visibility
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.web.routes import Auth, Route

MAX_BACKFILL = 100
MAX_MISSING = 100


class AtEvent(msgspec.Struct):
    """The event at which the state is requested."""

    event_id: str


class BackfillQuery(msgspec.Struct):
    """The events up to which history is requested, and how much of it."""

    v: list[str]
    limit: int


class MissingQuery(msgspec.Struct):
    """The events that the requesting server has, those that it was sent, and a limit."""

    earliest_events: list[str] = []
    latest_events: list[str] = []
    limit: int = 10
    min_depth: int = 0


class ServerTimestampQuery(msgspec.Struct):
    """The time, in ms since the epoch, and the direction to search in."""

    timestamp: int = msgspec.field(name="ts")
    direction: Literal["b", "f"] = msgspec.field(name="dir")


class EventsApi:
    def __init__(
        self,
        rooms: RoomRegistry,
        access: RoomAccess,
        chains: AuthChains,
        ancestors: EventAncestors,
        visibility: Visibility,
        timestamps: Timestamps,
    ) -> None:
        self._rooms = rooms
        self._access = access
        self._chains = chains
        self._ancestors = ancestors
        self._visibility = visibility
        self._timestamps = timestamps

    def routes(self) -> list[Route]:
        paths: dict[str, Callable[..., Any]] = {
            "/event/{event_id}": self.get_event,
            "/state/{room_id}": self.get_room_state,
            "/state_ids/{room_id}": self.get_room_state_ids,
            "/event_auth/{room_id}/{event_id}": self.get_event_auth,
            "/backfill/{room_id}": self.backfill_room,
            "/timestamp_to_event/{room_id}": self.get_event_by_timestamp,
        }
        routes = [
            Route("GET", V1 + path, handler, Auth.SERVER, cancellable=True)
            for path, handler in paths.items()
        ]
        missing = f"{V1}/get_missing_events/{{room_id}}"
        return [*routes, Route("POST", missing, self.get_missing_previous_events, Auth.SERVER)]

    async def get_event(self, origin: str, event_id: str) -> dict[str, Any]:
        """One event, of any room that the requesting server is in."""
        for room_nid in await self._rooms.rooms_with_event(event_id):
            known = await self._rooms.by_number(room_nid)
            if known is None:
                continue
            room = await self._access.shared(origin, known.room_id)
            stored = await self._event(room, event_id)
            (shown,) = await self._visibility.shown_to_server(room, origin, [stored])
            return self._transaction([msgspec.Raw(shown.json)])
        raise NotFound("This server does not have the event")

    async def get_room_state(self, origin: str, room_id: str, query: AtEvent) -> dict[str, Any]:
        """The state before an event, and its auth chain."""
        room, state = await self._state(origin, room_id, query.event_id)
        chain = await self._chains.chain_of(room, state)
        return {"pdus": raw_events(state), "auth_chain": raw_events(chain)}

    async def get_room_state_ids(
        self, origin: str, room_id: str, query: AtEvent
    ) -> dict[str, list[str]]:
        """The event ids of the state before an event, and of its auth chain."""
        room, state = await self._state(origin, room_id, query.event_id)
        chain = await self._chains.chain_of(room, state)
        return {"pdu_ids": _ids(state), "auth_chain_ids": _ids(chain)}

    async def get_event_auth(self, origin: str, room_id: str, event_id: str) -> dict[str, Any]:
        """The auth chain of an event."""
        room = await self._access.shared(origin, room_id)
        stored = await self._event(room, event_id)
        return {"auth_chain": raw_events(await self._chains.chain_of(room, [stored]))}

    async def backfill_room(
        self, origin: str, room_id: str, query: BackfillQuery
    ) -> dict[str, Any]:
        """Events up to some events, the newest first."""
        room = await self._access.shared(origin, room_id)
        if query.limit < 1:
            raise InvalidParam("limit must be positive")
        events = await self._ancestors.up_to(
            room, query.v[:MAX_BACKFILL], min(query.limit, MAX_BACKFILL)
        )
        shown = await self._visibility.shown_to_server(room, origin, events)
        return self._transaction([msgspec.Raw(event.json) for event in shown])

    async def get_missing_previous_events(
        self, origin: str, room_id: str, body: MissingQuery
    ) -> dict[str, Any]:
        """Events between those that the requesting server has and those that it was sent."""
        room = await self._access.shared(origin, room_id)
        events = await self._ancestors.between(
            room,
            body.earliest_events[:MAX_MISSING],
            body.latest_events[:MAX_MISSING],
            min(max(body.limit, 0), MAX_MISSING),
            body.min_depth,
        )
        shown = await self._visibility.shown_to_server(room, origin, events)
        return {"events": [msgspec.Raw(event.json) for event in shown]}

    async def get_event_by_timestamp(
        self, origin: str, room_id: str, query: ServerTimestampQuery
    ) -> dict[str, str | int]:
        """The event closest to a time, of those that the requesting server may see."""
        room = await self._access.shared(origin, room_id)
        moment = TimestampRequest(query.timestamp, backwards=query.direction == "b")
        event = (await self._timestamps.closest_for_server(room, origin, moment)).event
        return {"event_id": event.event_id, "origin_server_ts": event.origin_server_ts}

    async def _state(
        self, origin: str, room_id: str, event_id: str
    ) -> tuple[Room, list[StoredEvent]]:
        room = await self._access.shared(origin, room_id)
        if room.partial is not None:
            raise UnableDueToPartialState("This server does not have the full state yet")
        stored = await self._event(room, event_id)
        if stored.status.is_outlier:
            raise NotFound("This server does not have the state at the event")
        return room, await self._chains.state_before(room, stored)

    async def _event(self, room: Room, event_id: str) -> StoredEvent:
        stored = await self._rooms.find_event(room, event_id)
        if stored is None or stored.status.rejected is not None or is_imported(stored.event):
            raise NotFound("This server does not have the event")
        return stored

    def _transaction(self, pdus: Sequence[msgspec.Raw]) -> dict[str, Any]:
        origin = self._rooms.local_server
        return {"origin": origin.server_name, "origin_server_ts": origin.now_ms(), "pdus": pdus}


def _ids(events: Sequence[StoredEvent]) -> list[str]:
    return [stored.event.event_id for stored in events]
