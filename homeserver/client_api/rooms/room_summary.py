"""Summaries of rooms, over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.protocol.proposals.unstable_names import (
    ROOM_SUMMARIES,
    SUMMARY_ENCRYPTION,
    SUMMARY_ROOM_VERSION,
)
from homeserver.rooms.discovery.aliases import Aliases
from homeserver.rooms.discovery.room_previews import RoomPreviews
from homeserver.rooms.discovery.room_summaries import RoomSummary
from homeserver.web.routes import Auth, Route

PATH = "/_matrix/client/v1/room_summary/{room_id_or_alias}"


class ViaQuery(msgspec.Struct):
    """Servers that may be in the room."""

    via: list[str] = []


class RoomSummaryApi:
    def __init__(self, previews: RoomPreviews, aliases: Aliases) -> None:
        self._previews = previews
        self._aliases = aliases

    def routes(self) -> list[Route]:
        return [
            Route("GET", PATH, self.get_room_summary, Auth.GUEST, limit="room_lookup"),
            *(
                Route("GET", path, self.get_unstable_summary, Auth.GUEST, limit="room_lookup")
                for path in ROOM_SUMMARIES
            ),
        ]

    async def get_room_summary(
        self, caller: Requester, room_id_or_alias: str, query: ViaQuery
    ) -> RoomSummary:
        """The public data of a room, for a user before they join."""
        room_id, via = room_id_or_alias, list(filter(is_valid_server_name, query.via))
        if room_id.startswith("#"):
            target = await self._aliases.resolve(room_id, caller)
            room_id = target.room_id
            via += target.servers
        return await self._previews.preview(caller.user_id, room_id, via)

    async def get_unstable_summary(
        self, caller: Requester, room_id_or_alias: str, query: ViaQuery
    ) -> dict[str, Any]:
        """The same at the paths of the proposal, where two members have its names, too."""
        found = await self.get_room_summary(caller, room_id_or_alias, query)
        summary: dict[str, Any] = msgspec.to_builtins(found)
        for name, unstable in (
            ("room_version", SUMMARY_ROOM_VERSION),
            ("encryption", SUMMARY_ENCRYPTION),
        ):
            if name in summary:
                summary[unstable] = summary[name]
        return summary
