"""The membership that a user had in a room before, by their own member events."""

from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room


async def was_joined(rooms: RoomRegistry, room: Room, user_id: str, event: int, since: int) -> bool:
    """Whether a user was joined at `since`, by their member events from `event` backwards.

    Where the graph forked meanwhile, that event may replace others than those current at `since`,
    and only the state at `since` decides.
    """
    if since < room.forked_at:
        return await rooms.was_joined(room, user_id, since)
    number: int | None = event
    while number is not None:
        stored = (await rooms.load_events(room, [number]))[number]
        if (stored.position or 0) <= since:
            return stored.event.content.get("membership") == "join"
        number = stored.replaces
    return False
