"""The threads of a room over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#querying-threads-in-a-room
"""

from typing import Annotated, Any, Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.client_api.rooms.room_events import events_json
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.history.thread_list import ThreadList
from homeserver.web.routes import Route


class ThreadsQuery(msgspec.Struct):
    """The kind of threads, and the page."""

    include: Literal["all", "participated"] = "all"
    since: str | None = msgspec.field(name="from", default=None)
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None


class ThreadsApi:
    def __init__(
        self, threads: ThreadList, account_data: AccountData, local_server: LocalServer
    ) -> None:
        self._threads = threads
        self._account_data = account_data
        self._local_server = local_server

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v1/rooms/{room_id}/threads"
        return [Route("GET", path, self.get_thread_roots, limit="search", cancellable=True)]

    async def get_thread_roots(
        self, caller: Requester, room_id: str, query: ThreadsQuery
    ) -> dict[str, Any]:
        """The threads of a room."""
        page = await self._threads.page(
            caller,
            room_id,
            include=query.include,
            since=query.since,
            limit=query.limit,
            ignored=await self._account_data.ignored_users(caller.user_id),
        )
        response: dict[str, Any] = {
            "chunk": events_json(page.chunk, caller, self._local_server.now_ms())
        }
        if page.end is not None:
            response["next_batch"] = page.end
        return response
