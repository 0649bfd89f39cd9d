"""Filters over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#filtering
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.filters import Filters
from homeserver.client_api.accounts.own_data import check_own
from homeserver.web.routes import Auth, Route

FILTER = "/_matrix/client/v3/user/{user_id}/filter"


class FiltersApi:
    def __init__(self, filters: Filters) -> None:
        self._filters = filters

    def routes(self) -> list[Route]:
        # The specification does not list these for guests, but they sync, which begins with a
        # filter.
        return [
            Route("POST", FILTER, self.define_filter, auth=Auth.GUEST, limit="settings"),
            Route("GET", f"{FILTER}/{{filter_id}}", self.get_filter, auth=Auth.GUEST),
        ]

    async def define_filter(
        self, caller: Requester, user_id: str, body: dict[str, Any]
    ) -> dict[str, str]:
        """Store a filter."""
        check_own(caller, user_id)
        return {"filter_id": await self._filters.define(user_id, body)}

    async def get_filter(self, caller: Requester, user_id: str, filter_id: str) -> msgspec.Raw:
        """A filter that the caller stored."""
        check_own(caller, user_id)
        return msgspec.Raw(await self._filters.get(user_id, filter_id))
