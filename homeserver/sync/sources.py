"""The sources of syncs: what the engine reads."""

from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from homeserver.accounts.user_data.account_data import AccountData
from homeserver.accounts.user_data.filters import Filters
from homeserver.presence.presence_changed import PresenceUpdate
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.user_rooms import MemberRooms, UserRooms
from homeserver.storage.database.database import Database
from homeserver.streams.log import Log
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sections.preparation import EphemeralEvents


class PresenceSource(Protocol):
    """The source of presence events."""

    async def events_since(
        self, user_id: str, since: SyncToken | None, changed: Collection[int] | None = None
    ) -> PresenceUpdate:
        """Presence events, changed above `since`, of users who share a room with the user.

        `changed` are the numeric ids of the rooms in which anything changed, where that is known.
        """

    def only_event_since(
        self, user_id: str, since: SyncToken, rooms: MemberRooms
    ) -> msgspec.Raw | None:
        """The event of the one change above `since`, if there is no other and the user sees it.

        `rooms` are all of the user's; they have joined none since.
        """


class Sources(msgspec.Struct, frozen=True):
    """The sources that the engine reads."""

    db: Database
    log: Log
    rooms: RoomRegistry
    user_rooms: UserRooms
    account_data: AccountData
    filters: Filters
    presence: PresenceSource
    ephemeral: Sequence[EphemeralEvents]
