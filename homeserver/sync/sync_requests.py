"""The requests of syncs, made from what clients ask for.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.accounts.user_data.filters import Filters
from homeserver.concurrency.lru_cache import LruCache
from homeserver.sync.sync_request import NO_FILTER, SyncRequest

MAX_REQUESTS = 10_000  # devices whose last request is remembered


class SyncRequests:
    """Builds them. The last one of each device is kept: most clients ask for the same again."""

    def __init__(self, filters: Filters, account_data: AccountData) -> None:
        self._filters = filters
        self._account_data = account_data
        self._requests: LruCache[tuple[str, str | None], SyncRequest] = LruCache("", MAX_REQUESTS)

    async def build(
        self,
        caller: Requester,
        *,
        filter_text: str | None = None,
        full_state: bool = False,
        state_after: str | None = None,
        connection: str | None = None,
    ) -> SyncRequest:
        """Build a `SyncRequest`; `filter_text` is a filter's id, or the filter as JSON."""
        wanted = NO_FILTER
        if filter_text:
            wanted = await self._filters.find(caller.user_id, filter_text)
        ignored = self._account_data.find_ignored_users(caller.user_id)
        if ignored is None:
            ignored = await self._account_data.ignored_users(caller.user_id)
        # A client that polls again wants the same as before, and all of these are the same objects.
        device = caller.user_id, caller.device_id
        known = self._requests.get(device)
        if (
            known is None
            or known.caller is not caller
            or known.filter is not wanted
            or known.ignored is not ignored
            or known.full_state != full_state
            or known.state_after != state_after
            or known.connection != connection
        ):
            known = SyncRequest(caller, wanted, full_state, state_after, ignored, connection)
            self._requests.put(device, known)
        return known
