"""Upgrading rooms over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidupgrade
"""

from typing import Annotated

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.rooms.lifecycle.first_events import MAX_CREATORS
from homeserver.rooms.lifecycle.upgrade import RoomUpgrades
from homeserver.web.routes import Route

UPGRADE = "/_matrix/client/v3/rooms/{room_id}/upgrade"


class UpgradeRequest(msgspec.Struct):
    """The version of the new room, and its additional creators, if the version supports them."""

    new_version: str
    additional_creators: Annotated[list[str], msgspec.Meta(max_length=MAX_CREATORS)] = []


class RoomUpgradeApi:
    def __init__(self, upgrades: RoomUpgrades) -> None:
        self._upgrades = upgrades

    def routes(self) -> list[Route]:
        return [Route("POST", UPGRADE, self.upgrade_room, limit="room_creation")]

    async def upgrade_room(
        self, caller: Requester, room_id: str, body: UpgradeRequest
    ) -> dict[str, str]:
        """Replace a room by one of another version."""
        replacement = await self._upgrades.upgrade(
            caller, room_id, body.new_version, body.additional_creators
        )
        return {"replacement_room": replacement}
