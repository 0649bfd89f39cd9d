"""Restricted rooms: who may join because they are in another room, and by whose right.

Spec: https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
"""

from typing import Any

from homeserver.protocol.authorization.auth_state import AuthState
from homeserver.protocol.errors import Forbidden, UnableToAuthoriseJoin, UnableToGrantJoin
from homeserver.protocol.event_types import CREATE_KEY, JOIN_RULES_KEY, POWER_LEVELS_KEY
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room, StateKey


class RestrictedJoins:
    """Knows whom this server can let into a restricted room."""

    def __init__(self, rooms: RoomRegistry) -> None:
        self._rooms = rooms

    async def authoriser(self, room: Room, user_id: str) -> str | None:
        """A user of ours by whose right the room is joined, or `None` where none is needed.

        Raises `Forbidden` for a user who meets no condition, `UnableToAuthoriseJoin` where this
        server cannot tell, and `UnableToGrantJoin` where nobody here may let them in.
        """
        state = await self._rooms.current(room, [CREATE_KEY, POWER_LEVELS_KEY, JOIN_RULES_KEY])
        rules = state.get(JOIN_RULES_KEY)
        if rules is None or room.membership(user_id) in ("invite", "join"):
            return None
        rule = rules.event.content.get("join_rule")
        restricted = (rule == "restricted" and room.version.restricted_joins) or (
            rule == "knock_restricted" and room.version.knock_restricted
        )
        if not restricted:
            return None
        await self._check_condition(user_id, rules.event.content.get("allow"))
        events: dict[StateKey, Any] = {key: stored.event for key, stored in state.items()}
        levels = AuthState(events).power_levels
        candidates = [
            member
            for member in room.joined_members()
            if self._rooms.local_server.is_local(member) and levels.of(member) >= levels.invite
        ]
        if not candidates:
            raise UnableToGrantJoin("Nobody on this server can let you into the room")
        return max(candidates, key=levels.of)

    async def _check_condition(self, user_id: str, allow: object) -> None:
        is_unsure = False
        for condition in allow if isinstance(allow, list) else []:
            if not isinstance(condition, dict) or condition.get("type") != "m.room_membership":
                continue
            room_id = condition.get("room_id")
            if not isinstance(room_id, str):
                continue
            room = await self._rooms.find(room_id)
            if room is None or self._rooms.local_server.server_name not in room.joined_servers:
                is_unsure = True
            elif room.membership(user_id) == "join":
                return
            elif room.partial is not None and user_id not in room.members:
                is_unsure = True
        if is_unsure:
            raise UnableToAuthoriseJoin("This server is not in all rooms that would let you in")
        raise Forbidden("You are in none of the rooms whose members may join this one")
