"""The old event stream over the API, for room previews and clients from the early days.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-previews
"""

from typing import Annotated, Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.rooms.room_events import event_json
from homeserver.presence.tracker import PresenceTracker
from homeserver.rooms.events.local_server import LocalServer
from homeserver.streams.tokens import parse_stream_token, stream_token
from homeserver.sync.event_stream import EventStream
from homeserver.web.routes import Auth, Route

EVENTS = "/_matrix/client/v3/events"


class EventsQuery(msgspec.Struct):
    """Where to begin, how many ms to wait, and the room to look into, or all of the caller's.

    The text names no `limit`, but it did once: most events of rooms in the answer.
    """

    since: str | None = msgspec.field(name="from", default=None)
    timeout: int = 0
    room_id: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None


class EventStreamApi:
    """`max_wait` bounds the time that a request is held, in seconds."""

    def __init__(
        self, stream: EventStream, presence: PresenceTracker, origin: LocalServer, max_wait: float
    ) -> None:
        self._stream = stream
        self._presence = presence
        self._origin = origin
        self._max_wait = max_wait

    def routes(self) -> list[Route]:
        return [
            Route("GET", EVENTS, self.get_events, Auth.GUEST, cancellable=True),
            Route("GET", f"{EVENTS}/{{event_id}}", self.get_one_event, cancellable=True),
        ]

    async def get_events(self, caller: Requester, query: EventsQuery) -> dict[str, Any]:
        """What is new in the caller's rooms, or in one; `peekEvents` in the specification."""
        # Some clients name an empty token where they have none yet.
        since = parse_stream_token(query.since) if query.since else None
        timeout = min(max(query.timeout, 0) / 1000, self._max_wait)
        device = (caller.user_id, caller.device_id, None)
        await self._presence.sync_began(*device)
        try:
            stretch = await self._stream.wait(
                caller, since, timeout, query.room_id, limit=query.limit
            )
        finally:
            self._presence.sync_ended(*device)
        return {
            "start": stream_token(stretch.start),
            "end": stream_token(stretch.end),
            "chunk": stretch.chunk,
        }

    async def get_one_event(self, caller: Requester, event_id: str) -> msgspec.Raw:
        """One event, of whatever room."""
        seen = await self._stream.event(caller, event_id)
        return event_json(seen, caller, self._origin.now_ms())
