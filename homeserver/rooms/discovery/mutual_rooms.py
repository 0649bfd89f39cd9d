"""Mutual rooms: those that two users are both joined to.

Spec: https://spec.matrix.org/v1.19/client-server-api/#mutual-rooms
"""

import re
from collections.abc import Sequence

import msgspec

from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.identifiers import is_compliant_user_id
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.storage.rooms.names import Names

PAGE = 100  # rooms

_TOKEN = re.compile(r"r(\d{1,10})")


class MutualRoomsPage(msgspec.Struct, frozen=True):
    """Ids of some rooms, how many there are in all, and the token to continue from."""

    room_ids: Sequence[str]
    count: int
    next_batch: str | None


class MutualRooms:
    """Compares the rooms of users."""

    def __init__(self, names: Names, user_rooms: UserRooms) -> None:
        self._names = names
        self._user_rooms = user_rooms

    async def page(self, user_id: str, other: str, since: str | None = None) -> MutualRoomsPage:
        """The rooms that a user shares with another one, none if that user does not exist.

        Raises `InvalidParam` for an invalid user id, for the user's own, and for an invalid token.
        """
        if not is_compliant_user_id(other):
            raise InvalidParam(f"{other!r} is not a user ID")
        if other == user_id:
            raise InvalidParam("Every room of yours is shared with yourself")
        after = 0 if since is None else _parse(since)
        own = await self._user_rooms.joined(user_id)
        mutual = sorted(set(own).intersection(await self._user_rooms.joined(other)))
        page = [room_nid for room_nid in mutual if room_nid > after][: PAGE + 1]
        token = f"r{page[PAGE - 1]}" if len(page) > PAGE else None
        names = await self._names.names(page[:PAGE])
        return MutualRoomsPage([names[room_nid] for room_nid in page[:PAGE]], len(mutual), token)


def _parse(token: str) -> int:
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise InvalidParam("Not a token of this endpoint")
    return int(match[1])
