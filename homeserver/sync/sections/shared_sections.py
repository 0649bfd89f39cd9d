"""Shared room sections: new events as all members see them, if the room has no other news."""

from collections.abc import Sequence

from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.sync.sections.lazy_members import LazyMembers
from homeserver.sync.sections.preparation import EphemeralEvents
from homeserver.sync.sections.room_sections import shared_section, suits
from homeserver.sync.sections.sticky_sections import StickySections
from homeserver.sync.sections.timelines import Timelines
from homeserver.sync.sync_request import SyncRequest


class SharedSections:
    """Finds the sections that are shared."""

    def __init__(
        self,
        timelines: Timelines,
        lazy_members: LazyMembers,
        ephemeral: Sequence[EphemeralEvents],
        unread: UnreadCounts,
        sticky: StickySections,
        rooms: RoomRegistry,
    ) -> None:
        self._timelines = timelines
        self._lazy_members = lazy_members
        self._ephemeral = ephemeral
        self._unread = unread
        self._sticky = sticky
        self._rooms = rooms

    def find(
        self, room_nid: int, request: SyncRequest, since: int, now: int
    ) -> tuple[str, bytes] | None:
        """The id of a room and its section; `None` if it has to be made for the request alone.

        The user has been a member since before `since`, and nothing of theirs alone has changed.
        """
        room = self._rooms.loaded(room_nid)
        if (
            room is None
            or room.partial is not None
            or room.members_changed_at > since
            or room.full_state_at > since
            or room.last_position <= since
            or room_nid in self._sticky.rooms
        ):
            return None
        shared = self._timelines.shared(room, since, now, request.timeline_limit)
        if shared is None or not shared.events or not suits(request, shared):
            return None
        if shared.members_changed or (
            request.lazy and self._lazy_members.unsent(request, room_nid, shared.senders, since)
        ):
            return None
        for source in self._ephemeral:
            if source.may_have_changed(room_nid, since):
                return None
        count = self._unread.cached(room, request.user_id)
        if count is None or count.threads:
            return None
        return room.room_id, shared_section(request, shared, count)
