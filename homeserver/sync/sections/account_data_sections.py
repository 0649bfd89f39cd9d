"""The account data of an update: that of the account, and that of each room.

Spec: https://spec.matrix.org/v1.19/client-server-api/#client-config
"""

from collections.abc import Callable, Mapping

import msgspec

from homeserver.accounts.user_data.account_data import AccountData
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.update import Update, typed_event


class AccountDataSections:
    """Adds account data to updates."""

    def __init__(self, account_data: AccountData) -> None:
        self._account_data = account_data

    async def add(self, update: Update, request: SyncRequest) -> dict[str, list[msgspec.Raw]]:
        """Add the global account data; return the account data of rooms, by room id."""
        position = update.span.since_of_user(request.user_id) or 0
        by_room: dict[str, list[msgspec.Raw]] = {}
        if not self._account_data.may_have_changed(request.user_id, position):
            return by_room
        own: list[msgspec.Raw] = []
        wanted, in_rooms = request.filter.account_data, request.filter.room.account_data
        for room_id, event_type, content in await self._account_data.changed_since(
            request.user_id, position
        ):
            event = typed_event(event_type, content)
            if room_id is None:
                if wanted.matches(event_type, None):
                    own.append(event)
            elif in_rooms.matches_room(room_id) and in_rooms.matches(event_type, None, {}):
                by_room.setdefault(room_id, []).append(event)
        update.account_data = own
        if own or by_room:
            update.span.has_user(request.user_id)
        return by_room

    async def of_room(self, request: SyncRequest, room_id: str) -> list[msgspec.Raw]:
        """All account data of one room."""
        contents = await self._account_data.of_room(request.user_id, room_id)
        return _room_events(request, room_id, contents)

    async def by_room(self, request: SyncRequest) -> Callable[[str], list[msgspec.Raw]]:
        """The same for many rooms: a function that has all account data of each."""
        contents = await self._account_data.by_room(request.user_id)
        return lambda room_id: _room_events(request, room_id, contents.get(room_id, {}))


def _room_events(
    request: SyncRequest, room_id: str, contents: Mapping[str, bytes]
) -> list[msgspec.Raw]:
    wanted = request.filter.room.account_data
    if not wanted.matches_room(room_id):
        return []
    return [
        typed_event(event_type, content)
        for event_type, content in contents.items()
        if wanted.matches(event_type, None, {})
    ]
