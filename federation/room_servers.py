"""Which servers of a room are asked for what this one does not have."""

from homeserver.rooms.room import Room


def likely_servers(room: Room, own_name: str, most: int) -> list[str]:
    """Up to `most` other servers in the room, those with the most members first.

    These are likely to have been there for long, and to be up. While most members are not known,
    the server that let us in comes first.
    """
    first = () if room.partial is None else room.partial.servers[:most]
    largest = [name for name, _ in room.joined_servers.most_common(most + 1)]
    named = dict.fromkeys([*first, *largest])
    return [name for name in named if name != own_name][:most]
