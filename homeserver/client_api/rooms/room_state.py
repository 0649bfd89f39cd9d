"""A room's state over the API: reading it, and setting it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room
"""

from typing import Any, Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.rooms.delay_parameter import has_delay, schedule_instead
from homeserver.client_api.rooms.room_events import state_json
from homeserver.client_api.rooms.sticky_parameter import stickiness_in
from homeserver.client_api.rooms.timestamp_massaging import with_timestamp
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.history.room_reader import RoomReader
from homeserver.rooms.sending.delayed_events import DelayedEvents
from homeserver.rooms.sending.sending import Sending
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route

STATE = "/_matrix/client/v3/rooms/{room_id}/state"


class StateFormat(msgspec.Struct):
    """The format of the response: the content only, or the whole event."""

    format: Literal["content", "event"] = "content"


class RoomStateApi:
    def __init__(
        self,
        sending: Sending,
        reader: RoomReader,
        local_server: LocalServer,
        delayed: DelayedEvents,
    ) -> None:
        self._delayed = delayed
        self._sending = sending
        self._reader = reader
        self._local_server = local_server

    def routes(self) -> list[Route]:
        # A path without a state key has the empty one.
        short, whole = f"{STATE}/{{event_type}}", f"{STATE}/{{event_type}}/{{state_key}}"
        put, get = self.set_room_state_with_key, self.get_room_state_with_key
        return [
            Route("PUT", short, put, Auth.GUEST, limit="message"),
            Route("PUT", whole, put, Auth.GUEST, limit="message"),
            Route("GET", short, get, Auth.GUEST, cancellable=True),
            Route("GET", whole, get, Auth.GUEST, cancellable=True),
            Route("GET", STATE, self.get_room_state, Auth.GUEST, cancellable=True),
        ]

    async def set_room_state_with_key(
        self,
        caller: Requester,
        room_id: str,
        event_type: str,
        body: dict[str, Any],
        request: Request,
        state_key: str = "",
    ) -> dict[str, str]:
        """Set a state event, or schedule it."""
        caller, sticky = with_timestamp(caller, request), stickiness_in(request)
        if has_delay(request):
            return await schedule_instead(
                self._delayed,
                caller,
                request,
                room_id=room_id,
                event_type=event_type,
                content=body,
                state_key=state_key,
                sticky=sticky,
            )
        event_id = await self._sending.set_state(
            caller, room_id, event_type, state_key, body, sticky=sticky
        )
        return {"event_id": event_id}

    async def get_room_state_with_key(
        self,
        caller: Requester,
        room_id: str,
        event_type: str,
        query: StateFormat,
        state_key: str = "",
    ) -> dict[str, Any]:
        """One state event, or its content."""
        stored = await self._reader.state_event(caller.user_id, room_id, event_type, state_key)
        if query.format == "content":
            return stored.shown.content
        device = caller.user_id, caller.transaction_scope
        return stored.client_dict(self._local_server.now_ms(), device=device)

    async def get_room_state(self, caller: Requester, room_id: str) -> msgspec.Raw:
        """The full state of a room."""
        events = await self._reader.state(caller.user_id, room_id)
        return await state_json(events, caller, self._local_server)
