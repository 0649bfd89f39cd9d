"""The server-side search over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-search
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.rooms.room_events import event_json, events_json, state_json
from homeserver.concurrency.cooperative import TimeSlice, build_cooperatively
from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.filters import RoomEventFilter, parse_room_event_filter
from homeserver.protocol.search.search_term import SearchTerm
from homeserver.protocol.search.searchable import KEYS
from homeserver.rooms.events.local_server import LocalServer
from homeserver.search.event_search import SearchPage
from homeserver.search.found_events import FoundEvent
from homeserver.search.result_context import DEFAULT_AROUND, ContextRequest, ResultContext
from homeserver.search.search_request import SearchRequest, SearchToken, parse_search_token
from homeserver.search.searches import SearchAnswer, Searches
from homeserver.web.routes import Route

MAX_HIGHLIGHTS = 100
MAX_BODY = 65_536  # bytes

Limit = Annotated[int, msgspec.Meta(ge=0)]
Key = Literal["content.body", "content.name", "content.topic"]
GroupKey = Literal["room_id", "sender"]


class EventContext(msgspec.Struct):
    """The wanted events around each result."""

    before_limit: Limit = DEFAULT_AROUND
    after_limit: Limit = DEFAULT_AROUND
    include_profile: bool = False


class Group(msgspec.Struct):
    """A key by which results are grouped."""

    key: GroupKey


class Groupings(msgspec.Struct):
    """The wanted groups."""

    group_by: Annotated[list[Group], msgspec.Meta(max_length=10)] = []


class RoomEventsCriteria(msgspec.Struct):
    """The wanted events of rooms, and what is to be returned with them."""

    search_term: str
    keys: Annotated[list[Key], msgspec.Meta(max_length=10)] | None = None
    filter: dict[str, Any] | None = None
    order_by: Literal["rank", "recent"] = "rank"
    event_context: EventContext | None = None
    include_state: bool = False
    groupings: Groupings = msgspec.field(default_factory=Groupings)


class SearchCategories(msgspec.Struct):
    """The criteria of each category."""

    room_events: RoomEventsCriteria | None = None


class SearchBody(msgspec.Struct):
    search_categories: SearchCategories


class SearchQuery(msgspec.Struct):
    next_batch: str | None = None


class SearchApi:
    def __init__(self, searches: Searches, local_server: LocalServer) -> None:
        self._searches = searches
        self._local_server = local_server

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/search"
        return [
            Route("POST", path, self.search, limit="search", max_body=MAX_BODY, cancellable=True)
        ]

    async def search(
        self, caller: Requester, body: SearchBody, query: SearchQuery
    ) -> dict[str, Any]:
        """Search messages, room names and topics."""
        criteria = body.search_categories.room_events
        if criteria is None:
            return {"search_categories": {}}
        request = _request(criteria, query.next_batch)
        context = None
        if criteria.event_context is not None:
            wanted = criteria.event_context
            context = ContextRequest(
                wanted.before_limit, wanted.after_limit, wanted.include_profile
            )
        answer = await self._searches.search(
            caller, request, context, include_state=criteria.include_state
        )
        found = await self._render(caller, request, answer)
        groups = [group.key for group in criteria.groupings.group_by]
        if groups:
            found["groups"] = {key: _groups(key, answer.page) for key in groups}
        return {"search_categories": {"room_events": found}}

    async def _render(
        self, caller: Requester, request: SearchRequest, answer: SearchAnswer
    ) -> dict[str, Any]:
        page = answer.page
        found: dict[str, Any] = {
            "count": page.count,
            "highlights": await self._highlights(request.term, page.results),
            "results": await build_cooperatively(
                self._local_server.clock,
                (
                    self._result(caller, result, answer.contexts.get(result.stored.event_nid))
                    for result in page.results
                ),
            ),
        }
        if page.next is not None:
            found["next_batch"] = page.next.encode()
        if answer.states is not None:
            found["state"] = {
                room_id: await state_json(state, caller, self._local_server)
                for room_id, state in answer.states.items()
            }
        return found

    def _result(
        self, caller: Requester, result: FoundEvent, context: ResultContext | None
    ) -> dict[str, Any]:
        now_ms = self._local_server.now_ms()
        shown: dict[str, Any] = {
            "rank": result.entry.rank,
            "result": event_json(result.seen, caller, now_ms),
        }
        if context is not None:
            around = context.around
            shown["context"] = {
                "start": around.start,
                "end": around.end,
                "events_before": events_json(around.before, caller, now_ms),
                "events_after": events_json(around.after, caller, now_ms),
                "profile_info": context.profiles,
            }
        return shown

    async def _highlights(self, term: SearchTerm, results: Sequence[FoundEvent]) -> list[str]:
        """The words that were found, as the results have them."""
        time_slice = TimeSlice(self._local_server.clock)
        found: dict[str, None] = {}
        for result in results:
            found |= dict.fromkeys(term.highlights(result.text))
            if len(found) >= MAX_HIGHLIGHTS:
                break
            if time_slice.is_over:
                await time_slice.next()
        return list(found)[:MAX_HIGHLIGHTS]


def _request(criteria: RoomEventsCriteria, next_batch: str | None) -> SearchRequest:
    """The request that a body describes. Raises `BadJson` and `InvalidParam`."""
    event_filter = (
        RoomEventFilter() if criteria.filter is None else parse_room_event_filter(criteria.filter)
    )
    keys = list(KEYS) if criteria.keys is None else criteria.keys
    token = None if next_batch is None else parse_search_token(next_batch)
    by_rank = criteria.order_by == "rank"
    if token is not None and token.by_rank != by_rank:
        raise InvalidParam("The token is that of a search with another order")
    return SearchRequest(
        SearchTerm(criteria.search_term),
        frozenset(KEYS[key] for key in keys),
        event_filter,
        by_rank,
        token,
    )


def _groups(key: GroupKey, page: SearchPage) -> dict[str, dict[str, Any]]:
    """The results of a page by room or sender; `order` is that of their first results."""
    groups: dict[str, dict[str, Any]] = {}
    for result in page.results:
        event = result.stored.event
        value = event.room_id if key == "room_id" else event.sender
        group = groups.setdefault(value, {"order": len(groups) + 1, "results": []})
        group["results"].append(event.event_id)
    if page.next is not None:
        for value, group in groups.items():
            group["next_batch"] = _of_group(page.next, key, value).encode()
    return groups


def _of_group(token: SearchToken, key: GroupKey, value: str) -> SearchToken:
    """The token for the further results of a group."""
    # What was counted are the results of all groups.
    restarted = msgspec.structs.replace(token, shown=0, count=0)
    if key == "room_id":
        return msgspec.structs.replace(restarted, room_id=value)
    return msgspec.structs.replace(restarted, sender=value)
