"""Heroes: the members after whom a room without a name is called.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from collections.abc import Callable, Mapping
from heapq import nsmallest

from homeserver.protocol.event_types import CANONICAL_ALIAS_KEY, NAME_KEY
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room

HEROES = 5


async def heroes(rooms: RoomRegistry, room: Room, user_id: str) -> list[str]:
    """Whom a room without a name is called after: its first members but for the user themself."""
    if await _is_named(rooms, room):
        return []
    if room.heroes is None:
        room.heroes = first_members(room.members, room.member_events.__getitem__)
    return [hero for hero in room.heroes if hero != user_id][:HEROES]


def first_members(members: Mapping[str, str], order: Callable[[str], int]) -> list[str]:
    """The first of those who are in a room or invited; where that is nobody else, of all.

    One more than is shown: the reader is left out, and who that is differs.
    """
    present = [user_id for user_id, membership in members.items() if membership in _PRESENT]
    if len(present) <= 1:
        present = list(members)
    return nsmallest(HEROES + 1, present, key=order)


_PRESENT = ("join", "invite")


async def _is_named(rooms: RoomRegistry, room: Room) -> bool:
    """Whether the room has a name or a canonical alias, and not just an emptied one."""
    if NAME_KEY not in room.state and CANONICAL_ALIAS_KEY not in room.state:
        return False
    state = await rooms.current(room, [NAME_KEY, CANONICAL_ALIAS_KEY])
    return any(
        key in state and state[key].shown.content.get(field)
        for key, field in ((NAME_KEY, "name"), (CANONICAL_ALIAS_KEY, "alias"))
    )
