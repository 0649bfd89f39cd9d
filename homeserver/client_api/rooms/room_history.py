"""A room's history over the API: pages, single events, and their context.

Spec: https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room
"""

from typing import Annotated, Any, Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.client_api.rooms.room_events import event_json, events_json, state_json
from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.filters import RoomEventFilter, parse_room_event_filter
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.history.aggregations import BundledAggregations
from homeserver.rooms.history.history import History, PageRequest
from homeserver.rooms.history.room_reader import RoomReader
from homeserver.web.routes import Auth, Route

ROOM = "/_matrix/client/v3/rooms/{room_id}"

Limit = Annotated[int, msgspec.Meta(ge=0)]


class MessagesQuery(msgspec.Struct):
    """The page of the history."""

    direction: Literal["b", "f"] = msgspec.field(name="dir")
    since: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    limit: Limit | None = None
    filter: str | None = None


class ContextQuery(msgspec.Struct):
    """The size and filter of an event's context."""

    limit: Limit | None = None
    filter: str | None = None


class RoomHistoryApi:
    def __init__(
        self,
        history: History,
        reader: RoomReader,
        relations: BundledAggregations,
        account_data: AccountData,
        local_server: LocalServer,
    ) -> None:
        self._history = history
        self._reader = reader
        self._relations = relations
        self._account_data = account_data
        self._local_server = local_server

    def routes(self) -> list[Route]:
        event, context = f"{ROOM}/event/{{event_id}}", f"{ROOM}/context/{{event_id}}"
        messages = f"{ROOM}/messages"
        return [
            Route("GET", event, self.get_one_room_event, Auth.GUEST, cancellable=True),
            Route("GET", messages, self.get_room_events, Auth.GUEST, cancellable=True),
            Route("GET", context, self.get_event_context, Auth.GUEST, cancellable=True),
        ]

    async def get_one_room_event(
        self, caller: Requester, room_id: str, event_id: str
    ) -> msgspec.Raw:
        """One event."""
        seen = await self._reader.event(caller.user_id, room_id, event_id)
        ignored = await self._account_data.ignored_users(caller.user_id)
        (bundled,) = await self._relations.bundled(caller, ignored, [seen])
        return event_json(bundled, caller, self._local_server.now_ms())

    async def get_room_events(
        self, caller: Requester, room_id: str, query: MessagesQuery
    ) -> dict[str, Any]:
        """A page of the history."""
        request = PageRequest(
            query.direction == "b",
            query.since,
            query.to,
            query.limit,
            _filter(query.filter),
            await self._account_data.ignored_users(caller.user_id),
        )
        page = await self._history.page(caller.user_id, room_id, request)
        chunk = await self._relations.bundled(caller, request.ignored, page.chunk)
        now_ms = self._local_server.now_ms()
        response: dict[str, Any] = {
            "start": page.start,
            "chunk": events_json(chunk, caller, now_ms),
        }
        if page.end is not None:
            response["end"] = page.end
        if page.state:
            response["state"] = await state_json(page.state, caller, self._local_server)
        return response

    async def get_event_context(
        self, caller: Requester, room_id: str, event_id: str, query: ContextQuery
    ) -> dict[str, Any]:
        """An event with the events just before and after it."""
        request = PageRequest(
            backwards=False,
            limit=query.limit,
            event_filter=_filter(query.filter),
            ignored=await self._account_data.ignored_users(caller.user_id),
        )
        context = await self._history.context(caller.user_id, room_id, event_id, request)
        around = [context.event, *context.before, *context.after]
        event, *others = await self._relations.bundled(caller, request.ignored, around)
        before, after = others[: len(context.before)], others[len(context.before) :]
        now_ms = self._local_server.now_ms()
        return {
            "start": context.start,
            "end": context.end,
            "event": event_json(event, caller, now_ms),
            "events_before": events_json(before, caller, now_ms),
            "events_after": events_json(after, caller, now_ms),
            "state": await state_json(context.state, caller, self._local_server),
        }


def _filter(text: str | None) -> RoomEventFilter:
    """The filter of the query parameter. Raises `InvalidParam` and `BadJson`."""
    if not text:
        return RoomEventFilter()
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise InvalidParam("The filter is not JSON") from None
    return parse_room_event_filter(value)
