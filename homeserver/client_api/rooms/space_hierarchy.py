"""The rooms of a space, over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.rooms.discovery.space_children import SpaceRoom
from homeserver.rooms.discovery.space_hierarchy import HierarchyRequest, SpaceHierarchy
from homeserver.web.routes import Route

PATH = "/_matrix/client/v1/rooms/{room_id}/hierarchy"


class HierarchyQuery(msgspec.Struct):
    """The part of the tree."""

    suggested_only: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_depth: Annotated[int, msgspec.Meta(ge=0)] | None = None
    since: str | None = msgspec.field(default=None, name="from")


class HierarchyResponse(msgspec.Struct, omit_defaults=True):
    """A page of the tree."""

    rooms: Sequence[SpaceRoom]
    next_batch: str | None = None


class SpaceHierarchyApi:
    def __init__(self, hierarchy: SpaceHierarchy) -> None:
        self._hierarchy = hierarchy

    def routes(self) -> list[Route]:
        return [Route("GET", PATH, self.get_space_hierarchy, limit="room_lookup")]

    async def get_space_hierarchy(
        self, caller: Requester, room_id: str, query: HierarchyQuery
    ) -> HierarchyResponse:
        """A portion of a space tree."""
        request = HierarchyRequest(
            room_id, query.suggested_only, query.max_depth, query.limit, query.since
        )
        page = await self._hierarchy.page(caller.user_id, request)
        return HierarchyResponse(page.rooms, page.next_batch)
