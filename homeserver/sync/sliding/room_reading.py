"""One room for one response: what the client has of it, and what it wants."""

import msgspec

from homeserver.protocol.sliding_sync.room_config import RoomConfig
from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.history.aggregations import BundledAggregations
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import Membership
from homeserver.sync.sections.invitations import Invitations
from homeserver.sync.sections.lazy_members import LazyMembers
from homeserver.sync.sections.room_sections import RoomSections
from homeserver.sync.sections.room_state import RoomStateSections
from homeserver.sync.sections.shared_sections import SharedSections
from homeserver.sync.sections.timelines import Timelines
from homeserver.sync.sliding.connection import SentRoom
from homeserver.sync.sync_request import SyncRequest


class RoomReading(msgspec.Struct):
    """One room for one response: what the client has of it, and up to where it is read. A constant.

    `since` is the position up to which the client has the room, `None` if it has nothing of it, or
    has to replace what it has. `live_since` is the position above which events have just occurred;
    `None` in the first response of a connection. The users whose names the client needs to show
    the result are added to `shown`, unless that is `None`.
    """

    room: Room
    place: Membership
    request: SyncRequest
    config: RoomConfig
    sent: SentRoom
    since: int | None
    now: int
    live_since: int | None
    is_dm: bool
    has_counts: bool
    lists: tuple[str, ...]
    shown: set[str] | None = None

    @property
    def is_expanded(self) -> bool:
        """Whether more events are wanted than the client has."""
        return self.config.timeline_limit > self.sent.limit


class Sections(msgspec.Struct, frozen=True):
    """The parts of `/sync` that make rooms, most of which sliding sync shares."""

    timelines: Timelines
    states: RoomStateSections
    lazy_members: LazyMembers
    room_sections: RoomSections
    shared: SharedSections
    invitations: Invitations
    unread: UnreadCounts
    relations: BundledAggregations
