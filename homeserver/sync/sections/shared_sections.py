"""Shared room sections: new events as all members see them, if the room has no other news."""

from collections.abc import Sequence

import msgspec

from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.sync.sections.lazy_members import LazyMembers
from homeserver.sync.sections.preparation import EphemeralEvents
from homeserver.sync.sections.room_sections import shared_section, suits
from homeserver.sync.sections.sticky_sections import StickySections
from homeserver.sync.sections.timelines import SharedTimelineSlice, Timelines
from homeserver.sync.sync_request import MAX_TIMELINE, SyncRequest

MAX_AGE_SECONDS = 0.1  # the ages of the events are written into what is shared


class RoomNews(msgspec.Struct, frozen=True):
    """What is new in a room for all members: `span` is the room and both ends."""

    span: tuple[int, int, int]
    room: Room
    timeline: SharedTimelineSlice
    expires: float  # of the clock


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
        self._clock = rooms.local_server.clock
        self._latest: RoomNews | None = None  # most updates have the news of the update before

    def find(
        self, room_nid: int, request: SyncRequest, since: int, now: int
    ) -> tuple[str, bytes] | None:
        """The id of a room and its section; `None` if it has to be made for the request alone.

        The user has been a member since before `since`, and nothing of theirs alone has changed.
        """
        news = self.news(room_nid, since, now)
        if news is None:
            return None
        room, shared = news.room, news.timeline
        if len(shared.events) > request.timeline_limit or not suits(request, shared):
            return None
        if request.lazy and self._lazy_members.unsent(request, room_nid, shared.senders, since):
            return None
        count = self._unread.cached(room, request.user_id)
        if count is None or count.threads:
            return None
        return room.room_id, shared_section(request, shared, count)

    def news(self, room_nid: int, since: int, now: int) -> RoomNews | None:
        """The new events of a room, if they are all that is new in it for all of its members.

        Whether a reader sees them as the others do is for the caller to find out.
        """
        span = room_nid, since, now
        news = self._latest
        if news is None or news.span != span or self._clock.seconds() >= news.expires:
            news = self._latest = self._find_news(span)
        return news

    def _find_news(self, span: tuple[int, int, int]) -> RoomNews | None:
        room_nid, since, now = span
        room = self._rooms.loaded(room_nid)
        if (
            room is None
            or room.partial is not None
            or room.members_changed_at > since
            or room.full_state_at > since
            or room.last_position <= since
            or room_nid in self._sticky.rooms
            or any(source.may_have_changed(room_nid, since) for source in self._ephemeral)
        ):
            return None
        shared = self._timelines.shared(room, since, now, MAX_TIMELINE)
        if shared is None or not shared.events or shared.members_changed:
            return None
        expires = self._clock.seconds() + MAX_AGE_SECONDS
        return RoomNews(span, room, shared, expires)
