"""The child events of an event over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#relationships-api
"""

from typing import Annotated, Any, Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.client_api.rooms.room_events import events_json
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.history.relation_pages import LEVELS, ChildrenRequest, RelationPages
from homeserver.web.routes import Route

ROOM = "/_matrix/client/v1/rooms/{room_id}"

Limit = Annotated[int, msgspec.Meta(ge=1)]


class RelationsQuery(msgspec.Struct):
    """The page of the child events, and whether to include their children."""

    since: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    limit: Limit | None = None
    direction: Literal["b", "f"] = msgspec.field(name="dir", default="b")
    recurse: bool | None = None


class RelationsApi:
    def __init__(
        self, relation_pages: RelationPages, account_data: AccountData, local_server: LocalServer
    ) -> None:
        self._relation_pages = relation_pages
        self._account_data = account_data
        self._local_server = local_server

    def routes(self) -> list[Route]:
        of_event = f"{ROOM}/relations/{{event_id}}"
        of_type = f"{of_event}/{{rel_type}}"
        of_event_type = f"{of_type}/{{event_type}}"
        with_both = self.get_relating_events_with_rel_type_and_event_type
        with_type = self.get_relating_events_with_rel_type
        return [
            Route("GET", of_event, self.get_relating_events, cancellable=True),
            Route("GET", of_type, with_type, cancellable=True),
            Route("GET", of_event_type, with_both, cancellable=True),
        ]

    async def get_relating_events(
        self, caller: Requester, room_id: str, event_id: str, query: RelationsQuery
    ) -> dict[str, Any]:
        """The child events of an event."""
        return await self._children(caller, room_id, event_id, query)

    async def get_relating_events_with_rel_type(
        self, caller: Requester, room_id: str, event_id: str, rel_type: str, query: RelationsQuery
    ) -> dict[str, Any]:
        """The child events of an event by one relation type."""
        return await self._children(caller, room_id, event_id, query, rel_type)

    async def get_relating_events_with_rel_type_and_event_type(
        self,
        caller: Requester,
        room_id: str,
        event_id: str,
        rel_type: str,
        event_type: str,
        query: RelationsQuery,
    ) -> dict[str, Any]:
        """The child events of an event by one relation type and of one event type."""
        return await self._children(caller, room_id, event_id, query, rel_type, event_type)

    async def _children(
        self,
        caller: Requester,
        room_id: str,
        event_id: str,
        query: RelationsQuery,
        rel_type: str | None = None,
        event_type: str | None = None,
    ) -> dict[str, Any]:
        request = ChildrenRequest(
            rel_type=rel_type,
            event_type=event_type,
            recurse=bool(query.recurse),
            backwards=query.direction == "b",
            since=query.since,
            to=query.to,
            limit=query.limit,
            ignored=await self._account_data.ignored_users(caller.user_id),
        )
        page = await self._relation_pages.children(caller, room_id, event_id, request)
        response: dict[str, Any] = {
            "chunk": events_json(page.chunk, caller, self._local_server.now_ms())
        }
        if page.end is not None:
            response["next_batch"] = page.end
        if query.since is not None:
            response["prev_batch"] = query.since
        if query.recurse is not None:
            response["recursion_depth"] = LEVELS if query.recurse else 1
        return response
