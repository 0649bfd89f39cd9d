"""Room summaries: the member counts of a room, and the heroes to name it after.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from typing import Any

from homeserver.rooms.discovery.heroes import heroes
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room


async def summary(rooms: RoomRegistry, room: Room, user_id: str) -> dict[str, Any]:
    """The `summary` of a room section."""
    counts: dict[str, Any] = {
        "m.joined_member_count": room.joined_count,
        "m.invited_member_count": room.invited_count,
    }
    if named_after := await heroes(rooms, room, user_id):
        counts["m.heroes"] = named_after
    return counts
