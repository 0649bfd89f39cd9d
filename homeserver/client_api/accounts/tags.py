"""Room tags over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-tagging
"""

from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.tags import Tags
from homeserver.client_api.accounts.own_data import check_own, check_room_id
from homeserver.web.routes import Route

TAGS = "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/tags"


class TagsApi:
    def __init__(self, tags: Tags) -> None:
        self._tags = tags

    def routes(self) -> list[Route]:
        return [
            Route("GET", TAGS, self.get_room_tags),
            Route("PUT", f"{TAGS}/{{tag}}", self.set_room_tag, limit="settings"),
            Route("DELETE", f"{TAGS}/{{tag}}", self.delete_room_tag, limit="settings"),
        ]

    async def get_room_tags(self, caller: Requester, user_id: str, room_id: str) -> dict[str, Any]:
        """The caller's tags of a room."""
        check_own(caller, user_id)
        check_room_id(room_id)
        return {"tags": await self._tags.of_room(user_id, room_id)}

    async def set_room_tag(
        self, caller: Requester, user_id: str, room_id: str, tag: str, body: dict[str, Any]
    ) -> None:
        """Tag a room."""
        check_own(caller, user_id)
        check_room_id(room_id)
        await self._tags.put(user_id, room_id, tag, body)

    async def delete_room_tag(
        self, caller: Requester, user_id: str, room_id: str, tag: str
    ) -> None:
        """Remove a tag from a room."""
        check_own(caller, user_id)
        check_room_id(room_id)
        await self._tags.remove(user_id, room_id, tag)
