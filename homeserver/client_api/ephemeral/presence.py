"""Presence over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#presence
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.presence.presence_events import PresenceEvents
from homeserver.presence.tracker import PresenceTracker
from homeserver.presence.user_presence import State
from homeserver.web.routes import Route

STATUS = "/_matrix/client/v3/presence/{user_id}/status"


class SetPresence(msgspec.Struct):
    presence: State
    status_msg: str | None = None


class PresenceApi:
    def __init__(self, tracker: PresenceTracker, events: PresenceEvents) -> None:
        self._tracker = tracker
        self._events = events

    def routes(self) -> list[Route]:
        return [
            Route("PUT", STATUS, self.set_presence, limit="presence"),
            Route("GET", STATUS, self.get_presence),
        ]

    async def set_presence(self, caller: Requester, user_id: str, body: SetPresence) -> None:
        """Set the caller's own presence and status message; an empty message is none."""
        await self._tracker.set(caller, user_id, body.presence, body.status_msg or None)

    async def get_presence(self, caller: Requester, user_id: str) -> dict[str, Any]:
        """The presence of a user with whom the caller shares a room."""
        return await self._events.get(caller, user_id)
