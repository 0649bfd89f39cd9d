"""Room sections: the part of an update about one room that the user is in, or has left.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import msgspec
from msgspec.structs import replace

from homeserver.protocol.event_kinds import is_member_event, is_state
from homeserver.protocol.event_types import CREATE
from homeserver.push.unread_counter import UnreadCount
from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.discovery.heroes import heroes
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.aggregations import BundledAggregations
from homeserver.rooms.history.visibility import Visibility, VisibleEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import Membership
from homeserver.rooms.sticky.room_sticky_events import StickyEvent
from homeserver.sync.rendering import render_for, render_state
from homeserver.sync.sections.preparation import EphemeralEvents, Preparation
from homeserver.sync.sections.room_state import RoomStateSections
from homeserver.sync.sections.sticky_sections import StickySections
from homeserver.sync.sections.summary import summary
from homeserver.sync.sections.timelines import (
    SharedTimelineSlice,
    Timelines,
    TimelineSlice,
    timeline_json,
)
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.update import NO_EVENTS, encode, events_json, section_json


class RoomSections:
    """Makes the section of one room."""

    def __init__(
        self,
        timelines: Timelines,
        states: RoomStateSections,
        ephemeral: Sequence[EphemeralEvents],
        unread: UnreadCounts,
        visibility: Visibility,
        relations: BundledAggregations,
        sticky: StickySections,
        rooms: RoomRegistry,
    ) -> None:
        self._sticky = sticky
        self._timelines = timelines
        self._states = states
        self._ephemeral = ephemeral
        self._unread = unread
        self._visibility = visibility
        self._relations = relations
        self._rooms = rooms
        self._local_server = rooms.local_server
        self.preparation = Preparation(rooms, ephemeral, relations, unread)

    async def joined(
        self,
        room: Room,
        request: SyncRequest,
        place: Membership,
        since: int | None,
        now: int,
        account_data: Sequence[msgspec.Raw] = (),
        sticky: Sequence[StickyEvent] = (),
        *,
        newly_joined: bool = False,
        shown: set[str] | None = None,
    ) -> bytes | None:
        """The section of a room that the user is joined to; `None` where nothing is new.

        `since` is `None` where the room is new to the client: in an initial sync, or because the
        user has `newly_joined` it since. `sticky` are events that it has, in its timeline or not.
        The members whose names the client needs to show the section are added to `shown`.
        """
        parts: dict[str, bytes] = {}
        timeline: TimelineSlice | SharedTimelineSlice | None = None
        if since is None or request.full_state:
            timeline = await self._add_full(
                parts, room, request, since, now, shown, limited=newly_joined
            )
        elif room.last_position > since:
            timeline = await self._add_changes(parts, room, request, place, since, now, shown)
        shared = timeline if isinstance(timeline, SharedTimelineSlice) else None
        if sticky:
            events = () if timeline is None else timeline.events
            members = partial(self._states.lazy, room, request, since=since, now=now, events=events)
            await self._sticky.add(parts, room, request, sticky, events, members)
        ephemeral = await self._ephemeral_events(room, request, since)
        if ephemeral:
            parts["ephemeral"] = events_json(ephemeral)
        if account_data:
            parts["account_data"] = events_json(account_data)
        if not parts and not await self._has_read(room, request, since):
            return None
        if request.state_after is not None:
            # Without it, clients conclude that the server does not support it.
            parts.setdefault(request.state_after, NO_EVENTS)
        count = self._unread.cached(room, request.user_id)
        if count is None:
            count = await self._unread.counts(room, request.user_id)
        if shared is not None and not count.threads and _is_shared(parts, request, shared):
            return shared_section(request, shared, count)
        _add_unread(parts, request, count)
        return section_json(parts)

    async def left(
        self,
        room: Room,
        request: SyncRequest,
        place: Membership,
        since: int | None,
        account_data: Sequence[msgspec.Raw] = (),
    ) -> bytes:
        """The section of a room that the user has left, up to their leave event.

        Of a room that they were never in, because they declined an invite, it has only that event.
        """
        timeline, state = await self.until_leave(room, request, place, since)
        parts: dict[str, bytes] = {}
        await self._add_timeline(parts, request, timeline, state)
        if account_data:
            parts["account_data"] = events_json(account_data)
        return section_json(parts)

    async def until_leave(
        self, room: Room, request: SyncRequest, place: Membership, since: int | None
    ) -> tuple[TimelineSlice, list[StoredEvent]]:
        """The timeline and state up to the leave event of a user, as far as they may see them."""
        own = (await self._rooms.load_events(room, [place.event]))[place.event]
        if own.status.is_outlier:
            # This server was never in the room: it knows no other event.
            own_alone = [VisibleEvent(own, "leave")]
            return TimelineSlice(own_alone, limited=False, prev_batch=place.position), []
        joined_until = await self._visibility.joined_until(room, request.user_id)
        timeline = await self._timelines.cut(room, request, since or 0, place.position)
        if own.position == place.position > (since or 0):
            timeline = self._timelines.with_own(
                timeline, request, VisibleEvent(own, place.membership)
            )
        end = min(joined_until, place.position)
        if not joined_until or (since is not None and not request.full_state and since >= end):
            return timeline, []
        if since is None or request.full_state:
            return timeline, await self._states.full(room, request, timeline, end)
        return timeline, await self._states.changes(room, request, timeline, since, end)

    async def _add_full(
        self,
        parts: dict[str, bytes],
        room: Room,
        request: SyncRequest,
        since: int | None,
        now: int,
        shown: set[str] | None,
        *,
        limited: bool,
    ) -> TimelineSlice:
        timeline = await self._timelines.cut(room, request, since or 0, now)
        if limited:
            # The client may have events from before the user left: they do not adjoin these.
            timeline = replace(timeline, limited=True)
        elif since is None and _begins_the_room(timeline):
            # No event is earlier. Other servers point to the end then: some clients page back from
            # this token, and would show an empty room if they got nothing.
            timeline = replace(timeline, prev_batch=now)
        state = await self._states.full(room, request, timeline, now)
        parts["summary"] = encode(await summary(self._rooms, room, request.user_id))
        await self._add_timeline(parts, request, timeline, state)
        if shown is not None:
            _add_shown(shown, room, timeline.events, state)
        # Clients expect these in a room that is new to them.
        parts["ephemeral"] = parts["account_data"] = NO_EVENTS
        return timeline

    async def _add_changes(
        self,
        parts: dict[str, bytes],
        room: Room,
        request: SyncRequest,
        place: Membership,
        since: int,
        now: int,
        shown: set[str] | None,
    ) -> SharedTimelineSlice | TimelineSlice | None:
        """Add what changed; return the slice that was added."""
        if request.is_plain and place.position <= since:
            shared = self._timelines.shared(room, since, now, request.timeline_limit)
            if shared is not None and suits(request, shared):
                await self._add_shared(parts, room, request, shared, since, now, shown)
                return shared
        timeline = await self._timelines.cut(room, request, since, now)
        has_new_full_state = since < room.full_state_at <= now
        if not (timeline.seen or timeline.skipped or timeline.limited or has_new_full_state):
            return None
        has_hidden_state = timeline.limited or timeline.skipped or since < room.forked_at
        if has_hidden_state or request.use_state_after:
            state = await self._states.changes(room, request, timeline, since, now)
        elif request.lazy:
            senders = {event.stored.event.sender for event in timeline.seen}
            state = await self._states.lazy(room, request, senders, since, now, timeline.events)
        else:
            state = []
        if not (timeline.seen or state or timeline.limited or has_new_full_state):
            return None
        if (
            timeline.limited
            or has_new_full_state
            or _changes_members(event.stored for event in timeline.seen)
        ):
            state += await self._add_summary(parts, room, request, since, now, timeline.events)
        if has_new_full_state and request.lazy:
            state += await self._states.corrected(room, request, now)
        await self._add_timeline(parts, request, timeline, state)
        _add_shown(shown, room, timeline.events, state)
        return timeline

    async def _ephemeral_events(
        self, room: Room, request: SyncRequest, since: int | None
    ) -> list[msgspec.Raw]:
        wanted = request.filter.room.ephemeral
        if not wanted.matches_room(room.room_id):
            return []
        events: list[msgspec.Raw] = []
        for source in self._ephemeral:
            if since is None or source.may_have_changed(room.room_nid, since):
                events += await source.ephemeral_events(room, request.user_id, since)
        if events and not wanted.is_default:
            events = [event for event in events if wanted.matches(_type_of(event), None, {})]
        return events

    async def _has_read(self, room: Room, request: SyncRequest, since: int | None) -> bool:
        """Whether the counts changed by a receipt that the filter of the request hides."""
        wanted = request.filter.room.ephemeral
        if since is None or (wanted.is_default and wanted.matches_all_rooms):
            return False
        return await self._unread.was_read_after(room, request.user_id, since)

    async def _add_shared(
        self,
        parts: dict[str, bytes],
        room: Room,
        request: SyncRequest,
        shared: SharedTimelineSlice,
        since: int,
        now: int,
        shown: set[str] | None,
    ) -> None:
        if not shared.events:
            return
        state: list[StoredEvent] = []
        if request.lazy:
            state = await self._states.lazy(
                room, request, shared.senders, since, now, shared.events
            )
        if shared.members_changed:
            state += await self._add_summary(parts, room, request, since, now, shared.events)
        _add_shown(shown, room, shared.events, state)
        parts["timeline"] = shared.timeline
        if request.state_after is not None and not state:
            parts[request.state_after] = shared.state_after
        elif state:
            parts[request.state_name] = await self._state_json(request, state)

    async def _add_summary(
        self,
        parts: dict[str, bytes],
        room: Room,
        request: SyncRequest,
        since: int,
        now: int,
        events: Sequence[StoredEvent],
    ) -> list[StoredEvent]:
        """Add the summary; return the member events of heroes that the device does not have."""
        parts["summary"] = encode(await summary(self._rooms, room, request.user_id))
        if not request.lazy:
            return []
        hero_ids = await heroes(self._rooms, room, request.user_id)
        return await self._states.lazy(room, request, hero_ids, since, now, events)

    async def _add_timeline(
        self,
        parts: dict[str, bytes],
        request: SyncRequest,
        timeline: TimelineSlice,
        state: Sequence[StoredEvent],
    ) -> None:
        seen = timeline.seen
        if timeline.limited:
            # In a complete timeline the child events follow, and the client aggregates them itself.
            seen = await self._relations.bundled(request.caller, request.ignored, seen)
        events = render_for(request, seen, self._local_server.now_ms())
        parts["timeline"] = timeline_json(events, timeline.limited, timeline.prev_batch)
        parts[request.state_name] = await self._state_json(request, state)

    async def _state_json(self, request: SyncRequest, state: Sequence[StoredEvent]) -> bytes:
        return b'{"events":%s}' % await render_state(request, state, self._local_server)


def suits(request: SyncRequest, shared: SharedTimelineSlice) -> bool:
    """Whether the bytes of a shared slice are what a request would get."""
    return shared.is_alike_for(request) and (
        request.state_after is None or _wants_all(request, shared)
    )


def shared_section(request: SyncRequest, shared: SharedTimelineSlice, count: UnreadCount) -> bytes:
    """The section for a request to which nothing is new but what all members see."""
    key = request.state_after, count.notification, count.highlight
    section = shared.sections.get(key)
    if section is None:
        parts = {"timeline": shared.timeline}
        if request.state_after is not None:
            parts[request.state_after] = shared.state_after
        parts["unread_notifications"] = _count_json(count.notification, count.highlight)
        section = shared.sections[key] = section_json(parts)
    return section


def _begins_the_room(timeline: TimelineSlice) -> bool:
    """Whether a timeline has every event since the room's creation."""
    first = timeline.seen[0].stored.event if timeline.seen else None
    return not timeline.limited and first is not None and is_state(first, CREATE)


def _wants_all(request: SyncRequest, shared: SharedTimelineSlice) -> bool:
    """Whether a request gets all state that changed, and no more because of lazy loading."""
    wanted = request.filter.room.state
    is_unfiltered = wanted.is_default and wanted.matches_all_rooms
    return is_unfiltered and shared.changed is not None and not (request.lazy and shared.changed)


def _is_shared(
    parts: Mapping[str, bytes], request: SyncRequest, shared: SharedTimelineSlice
) -> bool:
    """Whether a room section has nothing but what all members get."""
    if request.state_after is None:
        return parts.keys() == {"timeline"}
    is_alone = parts.keys() == {"timeline", request.state_after}
    return is_alone and parts[request.state_after] is shared.state_after


def _add_unread(parts: dict[str, bytes], request: SyncRequest, count: UnreadCount) -> None:
    if not request.filter.room.timeline.unread_thread_notifications:
        parts["unread_notifications"] = _count_json(count.notification, count.highlight)
        return
    parts["unread_notifications"] = _count_json(*count.main)
    if count.threads:
        threads = {thread: _count_json(*counts) for thread, counts in count.threads.items()}
        parts["unread_thread_notifications"] = section_json(threads)


def _count_json(notifications: int, highlights: int) -> bytes:
    return b'{"highlight_count":%d,"notification_count":%d}' % (highlights, notifications)


def _add_shown(
    shown: set[str] | None,
    room: Room,
    timeline: Iterable[StoredEvent],
    state: Iterable[StoredEvent],
) -> None:
    """Add the joined members that a client shows with a timeline and a state that it lazy-loads."""
    if shown is not None:
        found = {stored.event.sender for stored in timeline}
        found.update(
            stored.event.state_key or ""
            for stored in (*timeline, *state)
            if is_member_event(stored.event)
        )
        shown.update(user_id for user_id in found if room.membership(user_id) == "join")


def _changes_members(events: Iterable[StoredEvent]) -> bool:
    return any(is_member_event(stored.event) for stored in events)


class _Typed(msgspec.Struct):
    type: str


def _type_of(event: msgspec.Raw) -> str:
    return msgspec.json.decode(event, type=_Typed).type
