"""The old event stream over the API, for room previews and old clients.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-previews
"""

from typing import Annotated, Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.rooms.room_events import event_json
from homeserver.presence.tracker import PresenceTracker
from homeserver.rooms.events.local_server import LocalServer
from homeserver.streams.sync_tokens import parse_sync_token
from homeserver.sync.event_stream import EventStream
from homeserver.web.routes import Auth, Route

EVENTS = "/_matrix/client/v3/events"


class EventsQuery(msgspec.Struct):
    """The start token, the ms to wait, and the room to peek into, or all of the caller's.

    `limit`, the most room events in the response, is no longer specified.
    """

    since: str | None = msgspec.field(name="from", default=None)
    timeout: int = 0
    room_id: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None


class EventStreamApi:
    """`max_wait` bounds the time that a request is held, in seconds."""

    def __init__(
        self,
        stream: EventStream,
        presence: PresenceTracker,
        local_server: LocalServer,
        max_wait: float,
    ) -> None:
        self._stream = stream
        self._presence = presence
        self._local_server = local_server
        self._max_wait = max_wait

    def routes(self) -> list[Route]:
        return [
            Route("GET", EVENTS, self.get_events, Auth.GUEST, cancellable=True),
            Route("GET", f"{EVENTS}/{{event_id}}", self.get_one_event, cancellable=True),
        ]

    async def get_events(self, caller: Requester, query: EventsQuery) -> dict[str, Any]:
        """The new events of the caller's rooms, or of one; `peekEvents` in the specification."""
        # Some clients send an empty token where they have none yet.
        since = parse_sync_token(query.since) if query.since else None
        timeout = min(max(query.timeout, 0) / 1000, self._max_wait)
        device = (caller.user_id, caller.device_id, None)
        await self._presence.sync_began(*device)
        try:
            found = await self._stream.wait(
                caller, since, timeout, query.room_id, limit=query.limit
            )
        finally:
            self._presence.sync_ended(*device)
        return {
            "start": found.start.text,
            "end": found.end.text,
            "chunk": found.chunk,
        }

    async def get_one_event(self, caller: Requester, event_id: str) -> msgspec.Raw:
        """One event of any room."""
        seen = await self._stream.event(caller, event_id)
        return event_json(seen, caller, self._local_server.now_ms())
