"""The user directory over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#user-directory
"""

from typing import Annotated, Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.user_directory.ranking import FoundUser
from homeserver.user_directory.search import UserSearch
from homeserver.web.routes import Route

PATH = "/_matrix/client/v3/user_directory/search"

Limit = Annotated[int, msgspec.Meta(ge=1)]


class UserDirectorySearch(msgspec.Struct):
    """What is searched for, and how many users are wanted."""

    search_term: str
    limit: Limit = 10


class UserDirectoryApi:
    def __init__(self, search: UserSearch) -> None:
        self._search = search

    def routes(self) -> list[Route]:
        return [
            Route("POST", PATH, self.search_user_directory, limit="search", cancellable=True),
        ]

    async def search_user_directory(
        self, caller: Requester, body: UserDirectorySearch
    ) -> dict[str, Any]:
        """The users whom a term finds."""
        results = await self._search.search(caller.user_id, body.search_term, body.limit)
        return {"results": [_shown(user) for user in results.users], "limited": results.is_limited}


def _shown(user: FoundUser) -> dict[str, str]:
    shown = {"user_id": user.user_id}
    if user.display_name is not None:
        shown["display_name"] = user.display_name
    if user.avatar_url is not None:
        shown["avatar_url"] = user.avatar_url
    return shown
