"""Invited and knocked rooms: the stripped state that a user sees of a room before joining it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#stripped-state
"""

from typing import Any

from homeserver.protocol.client_events import STRIPPED_STATE_TYPES, stripped_event, stripped_state
from homeserver.protocol.event_types import MEMBER
from homeserver.rooms.history.visibility import Visibility
from homeserver.rooms.membership.out_of_room_memberships import OutOfRoomMemberships
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room, StateKey
from homeserver.rooms.room.user_rooms import Membership
from homeserver.sync.update import encode


class Invitations:
    """Makes the stripped state of rooms that a user is invited to or knocks at."""

    def __init__(
        self, rooms: RoomRegistry, visibility: Visibility, out_of_room: OutOfRoomMemberships
    ) -> None:
        self._rooms = rooms
        self._visibility = visibility
        self._out_of_room = out_of_room

    async def section(self, room: Room, place: Membership) -> bytes:
        """`invite_state` or `knock_state`, as of the time of the invite or knock."""
        events = await self.stripped_state(room, place)
        return encode({f"{place.membership}_state": {"events": events}})

    async def stripped_state(self, room: Room, place: Membership) -> list[dict[str, Any]]:
        """The stripped state of a room as of the time of the invite or knock, which comes last."""
        own = (await self._rooms.load_events(room, [place.event]))[place.event]
        own_event = _own_event(own.event.event_id, own.event.origin_server_ts, own.shown)
        if own.status.is_outlier:
            stripped = await self._out_of_room.stripped_state(
                room.room_nid, own.event.state_key or ""
            )
            return [*stripped, own_event]
        keys: list[StateKey] = [(event_type, "") for event_type in STRIPPED_STATE_TYPES]
        if own.event.sender != own.event.state_key:
            keys.append((MEMBER, own.event.sender))
        state = await self._visibility.state_at(room, own.state_before, keys)
        stripped = stripped_state({key: stored.shown for key, stored in state.items()})
        sender = state.get((MEMBER, own.event.sender))
        if sender is not None:
            stripped.append(stripped_event(sender.event))
        stripped.append(own_event)
        return stripped


def _own_event(event_id: str, origin_server_ts: int, event: Any) -> dict[str, Any]:
    # Clients show when the user was invited, and by which event.
    return {
        **stripped_event(event),
        "event_id": event_id,
        "origin_server_ts": origin_server_ts,
    }
