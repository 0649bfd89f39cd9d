"""Paths under `/user/{user_id}`: they name a user, who must be the caller."""

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Forbidden, InvalidParam
from homeserver.protocol.identifiers import is_valid_room_id


def check_own(caller: Requester, user_id: str) -> None:
    """Raise `Forbidden` where the path names another user."""
    if caller.user_id != user_id:
        raise Forbidden("This belongs to another user")


def check_room_id(room_id: str) -> None:
    """Raise `InvalidParam` where the path has an invalid room id."""
    if not is_valid_room_id(room_id):
        raise InvalidParam("Not a room ID")
