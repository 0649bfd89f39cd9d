"""One search from the request to all that it returns.

Searches get a few slots, granted in rotation to the users who wait. So they never use all
connections to the database, which log-in needs too, and no user makes all others wait.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.concurrency.fair_slots import FairSlots, QueueFull
from homeserver.protocol.errors import LimitExceeded, NotFound
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.search.event_search import EventSearch, SearchPage
from homeserver.search.result_context import ContextRequest, ResultContext, ResultContexts
from homeserver.search.search_request import SearchRequest

SLOTS = 2  # searches at a time, of different users
MAX_WAITING = 5  # searches of a user
MAX_WAITING_IN_ALL = 200
RETRY_AFTER_MS = 1_000


class SearchAnswer(msgspec.Struct, frozen=True):
    """A page of results, the contexts of results by event nid, and the states of rooms by id."""

    page: SearchPage
    contexts: Mapping[int, ResultContext]
    states: Mapping[str, Sequence[StoredEvent]] | None


class Searches:
    """Runs the searches of all users."""

    def __init__(
        self,
        event_search: EventSearch,
        contexts: ResultContexts,
        account_data: AccountData,
    ) -> None:
        self._event_search = event_search
        self._contexts = contexts
        self._account_data = account_data
        self._slots = FairSlots(
            SLOTS, share=1, max_waiting=MAX_WAITING, max_waiting_in_all=MAX_WAITING_IN_ALL
        )

    async def search(
        self,
        caller: Requester,
        request: SearchRequest,
        context: ContextRequest | None,
        *,
        include_state: bool,
    ) -> SearchAnswer:
        """Search. Raises `LimitExceeded` if too many searches wait."""
        try:
            async with self._slots.slot(caller.user_id):
                return await self._search(caller, request, context, include_state)
        except QueueFull:
            raise LimitExceeded(RETRY_AFTER_MS) from None

    async def _search(
        self,
        caller: Requester,
        request: SearchRequest,
        context: ContextRequest | None,
        include_state: bool,
    ) -> SearchAnswer:
        page = await self._event_search.page(caller, request)
        contexts: dict[int, ResultContext] = {}
        if context is not None:
            ignored = await self._account_data.ignored_users(caller.user_id)
            for result in page.results:
                with suppress(NotFound):  # it was removed from the timeline meanwhile
                    contexts[result.stored.event_nid] = await self._contexts.of(
                        caller, ignored, result, context
                    )
        states = None
        if include_state:
            states = await self._contexts.states(caller.user_id, page.results)
        return SearchAnswer(page, contexts, states)
