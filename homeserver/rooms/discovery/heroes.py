"""Heroes: the members whose names a room without a name is shown by.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from collections.abc import Callable, Mapping
from heapq import nsmallest

from homeserver.protocol.event_types import CANONICAL_ALIAS_KEY, NAME_KEY
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room

HEROES = 5


async def heroes(rooms: RoomRegistry, room: Room, user_id: str) -> list[str]:
    """The heroes of a room without a name: its first members, without the user."""
    return [] if await _is_named(rooms, room) else heroes_if_nameless(room, user_id)


def heroes_if_nameless(room: Room, user_id: str) -> list[str]:
    """The heroes of a room, if it turns out that it has no name."""
    if room.heroes is None:
        room.heroes = first_members(room.members, room.member_events.__getitem__)
    return [hero for hero in room.heroes if hero != user_id][:HEROES]


def first_members(members: Mapping[str, str], order: Callable[[str], int]) -> list[str]:
    """The first joined or invited members; if there is at most one, the first of all.

    One more than is shown, since the reader is left out later.
    """
    present = [user_id for user_id, membership in members.items() if membership in _PRESENT]
    if len(present) <= 1:
        present = list(members)
    return nsmallest(HEROES + 1, present, key=order)


_PRESENT = ("join", "invite")


def may_be_named(room: Room) -> bool:
    """Whether the state has a name or a canonical alias, which may be empty."""
    return NAME_KEY in room.state or CANONICAL_ALIAS_KEY in room.state


async def _is_named(rooms: RoomRegistry, room: Room) -> bool:
    """Whether the room has a name or a canonical alias that is not empty."""
    if not may_be_named(room):
        return False
    state = await rooms.current(room, [NAME_KEY, CANONICAL_ALIAS_KEY])
    return any(
        key in state and state[key].shown.content.get(field)
        for key, field in ((NAME_KEY, "name"), (CANONICAL_ALIAS_KEY, "alias"))
    )
