"""Notifications over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#listing-notifications
"""

from typing import Annotated, Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.push.notifications import Notification, Notifications
from homeserver.rooms.events.local_server import LocalServer
from homeserver.streams.positions import MAX_POSITION
from homeserver.streams.tokens import parse_stream_token, stream_token
from homeserver.web.routes import Route

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


class NotificationsQuery(msgspec.Struct):
    """The page and kind of notifications."""

    since: str | None = msgspec.field(name="from", default=None)
    limit: Annotated[int, msgspec.Meta(gt=0)] = DEFAULT_LIMIT
    only: str | None = None


class NotificationsApi:
    def __init__(self, notifications: Notifications, local_server: LocalServer) -> None:
        self._notifications = notifications
        self._local_server = local_server

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/notifications"
        return [Route("GET", path, self.get_notifications, cancellable=True)]

    async def get_notifications(
        self, caller: Requester, query: NotificationsQuery
    ) -> dict[str, Any]:
        """A page of the caller's notifications, newest first."""
        page = await self._notifications.page(
            caller.user_id,
            limit=min(query.limit, MAX_LIMIT),
            upto=MAX_POSITION if query.since is None else parse_stream_token(query.since),
            highlights_only=query.only == "highlight",
        )
        response: dict[str, Any] = {
            "notifications": [self._render(caller, shown) for shown in page.notifications]
        }
        if page.next is not None:
            response["next_token"] = stream_token(page.next)
        return response

    def _render(self, caller: Requester, notification: Notification) -> dict[str, Any]:
        stored = notification.event.stored
        event = stored.client_json(
            self._local_server.now_ms(),
            room_id=False,
            device=(caller.user_id, caller.transaction_scope),
            membership=notification.event.membership,
        )
        return {
            "actions": notification.actions,
            "event": msgspec.Raw(event),
            # Push rules have no profile tag, but some clients require the member.
            "profile_tag": "",
            "read": notification.read,
            "room_id": notification.room_id,
            "ts": stored.event.origin_server_ts,
        }
