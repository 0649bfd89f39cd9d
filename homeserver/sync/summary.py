"""Room summaries: how many are in a room, and whom to name it after.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from heapq import nsmallest
from typing import Any

from homeserver.rooms.room import Room, StateKey
from homeserver.rooms.rooms import Rooms

HEROES = 5
NAME: StateKey = ("m.room.name", "")
ALIAS: StateKey = ("m.room.canonical_alias", "")


async def heroes(rooms: Rooms, room: Room, user_id: str) -> list[str]:
    """Whom a room without a name is called after: its first members but for the user themself."""
    if await _is_named(rooms, room):
        return []
    if room.heroes is None:
        room.heroes = _first_members(room)
    return [hero for hero in room.heroes if hero != user_id][:HEROES]


async def summary(rooms: Rooms, room: Room, user_id: str) -> dict[str, Any]:
    """The `summary` of a room section."""
    counts: dict[str, Any] = {
        "m.joined_member_count": room.joined_count,
        "m.invited_member_count": room.invited_count,
    }
    if named_after := await heroes(rooms, room, user_id):
        counts["m.heroes"] = named_after
    return counts


async def _is_named(rooms: Rooms, room: Room) -> bool:
    """Whether the room has a name or a canonical alias, and not just an emptied one."""
    if NAME not in room.state and ALIAS not in room.state:
        return False
    state = await rooms.current(room, [NAME, ALIAS])
    return any(
        key in state and state[key].shown.content.get(field)
        for key, field in ((NAME, "name"), (ALIAS, "alias"))
    )


def _first_members(room: Room) -> list[str]:
    # One more than is shown: the reader is left out, and who that is differs.
    present = [
        user_id for user_id, membership in room.members.items() if membership in ("join", "invite")
    ]
    if len(present) <= 1:
        present = list(room.members)
    return nsmallest(HEROES + 1, present, key=room.member_events.__getitem__)
