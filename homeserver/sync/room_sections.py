"""Room sections: what a device has not seen of one room that its user is in, or has left.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import msgspec

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
from homeserver.sync.rendering import render_for, render_state
from homeserver.sync.room_state import RoomStateSections
from homeserver.sync.summary import summary
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.timelines import SharedTimelineSlice, Timelines, TimelineSlice, timeline_json
from homeserver.sync.update import encode, events_json, section_json

NO_EVENTS = b'{"events":[]}'


class EphemeralEvents(Protocol):
    """Where the ephemeral events of rooms come from: typing, receipts."""

    def may_have_changed(self, room: int, since: int) -> bool:
        """Whether it is worth asking for what changed above a position; tells at once."""

    async def ephemeral_events(
        self, room: Room, user_id: str, since: int | None
    ) -> Sequence[msgspec.Raw]:
        """What changed above `since`, for one reader; all that there is for `None`."""

    async def changed_rooms(self, rooms: Collection[int], since: int) -> Collection[int]:
        """Those of the rooms, by number, in which something changed above `since`."""


class RoomSections:
    """Makes the sections of single rooms."""

    def __init__(
        self,
        timelines: Timelines,
        states: RoomStateSections,
        ephemeral: Sequence[EphemeralEvents],
        unread: UnreadCounts,
        visibility: Visibility,
        relations: BundledAggregations,
        rooms: RoomRegistry,
    ) -> None:
        self._timelines = timelines
        self._states = states
        self._ephemeral = ephemeral
        self._unread = unread
        self._visibility = visibility
        self._relations = relations
        self._rooms = rooms
        self._origin = rooms.local_server

    async def joined(
        self,
        room: Room,
        reader: SyncRequest,
        place: Membership,
        since: int | None,
        now: int,
        account_data: Sequence[msgspec.Raw] = (),
        *,
        newly_joined: bool = False,
    ) -> bytes | None:
        """The section of a room that the user is joined to; `None` where nothing is new.

        `since` is `None` for a reader to whom the room is new, be it that everything is, or that
        the user has `newly_joined` it since.
        """
        parts: dict[str, bytes] = {}
        shared = None
        if since is None or reader.full_state:
            await self._add_whole(parts, room, reader, since, now, limited=newly_joined)
        elif room.last_position > since:
            shared = await self._add_news(parts, room, reader, place, since, now)
        ephemeral = await self._ephemeral_events(room, reader, since)
        if ephemeral:
            parts["ephemeral"] = events_json(ephemeral)
        if account_data:
            parts["account_data"] = events_json(account_data)
        if not parts and not await self._has_read(room, reader, since):
            return None
        if reader.state_after is not None:
            # Clients take a section without it for one of a server that does not know it.
            parts.setdefault(reader.state_after, NO_EVENTS)
        count = self._unread.cached(room, reader.user_id)
        if count is None:
            count = await self._unread.counts(room, reader.user_id)
        if shared is not None and not count.threads and _is_shared(parts, reader, shared):
            return _shared_section(parts, reader, shared, count)
        _add_unread(parts, reader, count)
        return section_json(parts)

    async def left(
        self,
        room: Room,
        reader: SyncRequest,
        place: Membership,
        since: int | None,
        account_data: Sequence[msgspec.Raw] = (),
    ) -> bytes:
        """The section of a room that the user has left, up to the event by which they did.

        Of a room that they never were in, because they turned down an invite, they see that alone.
        """
        own = (await self._rooms.stores.events.load(room.version, [place.event]))[place.event]
        if own.status.is_outlier:
            # A room that this server never was in: nothing else is known of it.
            told: dict[str, bytes] = {}
            alone = TimelineSlice(
                [VisibleEvent(own, "leave")], limited=False, prev_batch=place.position
            )
            await self._add_timeline(told, reader, alone, [])
            return section_json(told)
        joined_until = await self._visibility.joined_until(room, reader.user_id)
        timeline = await self._timelines.cut(room, reader, since or 0, place.position)
        if own.position == place.position > (since or 0):
            timeline = self._timelines.with_own(
                timeline, reader, VisibleEvent(own, place.membership)
            )
        state: list[StoredEvent] = []
        if joined_until:
            end = min(joined_until, place.position)
            if since is None or reader.full_state:
                state = await self._states.full(room, reader, timeline, end)
            elif since < end:
                state = await self._states.changes(room, reader, timeline, since, end)
        parts: dict[str, bytes] = {}
        await self._add_timeline(parts, reader, timeline, state)
        if account_data:
            parts["account_data"] = events_json(account_data)
        return section_json(parts)

    async def _add_whole(
        self,
        parts: dict[str, bytes],
        room: Room,
        reader: SyncRequest,
        since: int | None,
        now: int,
        *,
        limited: bool,
    ) -> None:
        timeline = await self._timelines.cut(room, reader, since or 0, now)
        if limited:
            # The client may hold events from before the user left: they are no part of this.
            timeline = replace(timeline, limited=True)
        elif since is None and _begins_the_room(timeline):
            # Nothing is earlier. Others point to the end then, and there are clients that ask for
            # the history of a room from here, and would take none for an empty room.
            timeline = replace(timeline, prev_batch=now)
        state = await self._states.full(room, reader, timeline, now)
        parts["summary"] = encode(await summary(self._rooms, room, reader.user_id))
        await self._add_timeline(parts, reader, timeline, state)
        # Clients expect these in a room that they see for the first time.
        parts["ephemeral"] = parts["account_data"] = NO_EVENTS

    async def _add_news(
        self,
        parts: dict[str, bytes],
        room: Room,
        reader: SyncRequest,
        place: Membership,
        since: int,
        now: int,
    ) -> SharedTimelineSlice | None:
        """Add what happened; the result is the slice that all readers get, if it is that."""
        if reader.is_plain and place.position <= since:
            shared = self._timelines.shared(room, since, now, reader.timeline_limit)
            if shared is not None and self._suits(reader, shared):
                await self._add_shared(parts, room, reader, shared, since, now)
                return shared
        timeline = await self._timelines.cut(room, reader, since, now)
        became_whole = since < room.full_state_at <= now
        if not (timeline.seen or timeline.skipped or timeline.limited or became_whole):
            return None
        has_untold_state = timeline.limited or timeline.skipped or since < room.forked_at
        if has_untold_state or reader.use_state_after:
            state = await self._states.changes(room, reader, timeline, since, now)
        elif reader.lazy:
            senders = {event.stored.event.sender for event in timeline.seen}
            state = await self._states.lazy(room, reader, senders, since, now, timeline.events)
        else:
            state = []
        if not (timeline.seen or state or timeline.limited or became_whole):
            return None
        if (
            timeline.limited
            or became_whole
            or _changes_members(event.stored for event in timeline.seen)
        ):
            state += await self._add_summary(parts, room, reader, since, now, timeline.events)
        if became_whole and reader.lazy:
            state += await self._states.corrected(room, reader, now)
        await self._add_timeline(parts, reader, timeline, state)
        return None

    async def _ephemeral_events(
        self, room: Room, reader: SyncRequest, since: int | None
    ) -> list[msgspec.Raw]:
        wanted = reader.filter.room.ephemeral
        if not wanted.matches_room(room.room_id):
            return []
        events: list[msgspec.Raw] = []
        for source in self._ephemeral:
            if since is None or source.may_have_changed(room.room_nid, since):
                events += await source.ephemeral_events(room, reader.user_id, since)
        if events and not wanted.is_default:
            events = [event for event in events if wanted.matches(_type_of(event), None, {})]
        return events

    async def _has_read(self, room: Room, reader: SyncRequest, since: int | None) -> bool:
        """Whether the counts changed by a receipt that the reader's filter keeps from them."""
        wanted = reader.filter.room.ephemeral
        if since is None or (wanted.is_default and wanted.matches_all_rooms):
            return False
        return await self._unread.was_read_after(room, reader.user_id, since)

    def _suits(self, reader: SyncRequest, shared: SharedTimelineSlice) -> bool:
        """Whether the common bytes are what this reader would get."""
        return (
            reader.device not in shared.transactions
            and (not reader.use_state_after or _wants_all(reader, shared))
            and reader.ignored.isdisjoint(shared.senders)
        )

    async def _add_shared(
        self,
        parts: dict[str, bytes],
        room: Room,
        reader: SyncRequest,
        shared: SharedTimelineSlice,
        since: int,
        now: int,
    ) -> None:
        if not shared.events:
            return
        state: list[StoredEvent] = []
        if reader.lazy:
            state = await self._states.lazy(room, reader, shared.senders, since, now, shared.events)
        if shared.members_changed:
            state += await self._add_summary(parts, room, reader, since, now, shared.events)
        parts["timeline"] = shared.timeline
        if reader.state_after is not None and not state:
            parts[reader.state_after] = shared.state_after
        elif state:
            parts[reader.state_name] = await self._state_json(reader, state)

    async def _add_summary(
        self,
        parts: dict[str, bytes],
        room: Room,
        reader: SyncRequest,
        since: int,
        now: int,
        events: Sequence[StoredEvent],
    ) -> list[StoredEvent]:
        """Add the summary; the result are member events of heroes whom the device does not know."""
        parts["summary"] = encode(await summary(self._rooms, room, reader.user_id))
        if not reader.lazy:
            return []
        named = await heroes(self._rooms, room, reader.user_id)
        return await self._states.lazy(room, reader, named, since, now, events)

    async def _add_timeline(
        self,
        parts: dict[str, bytes],
        reader: SyncRequest,
        timeline: TimelineSlice,
        state: Sequence[StoredEvent],
    ) -> None:
        seen = timeline.seen
        if timeline.limited:
            # Elsewhere the children come along, and the client aggregates them itself.
            seen = await self._relations.bundled(reader.caller, reader.ignored, seen)
        events = render_for(reader, seen, self._origin.now_ms())
        parts["timeline"] = timeline_json(events, timeline.limited, timeline.prev_batch)
        parts[reader.state_name] = await self._state_json(reader, state)

    async def _state_json(self, reader: SyncRequest, state: Sequence[StoredEvent]) -> bytes:
        return b'{"events":%s}' % await render_state(reader, state, self._origin)


def _begins_the_room(timeline: TimelineSlice) -> bool:
    """Whether a timeline has everything from the creation of the room on."""
    first = timeline.seen[0].stored.event if timeline.seen else None
    return not timeline.limited and first is not None and is_state(first, CREATE)


def _wants_all(reader: SyncRequest, shared: SharedTimelineSlice) -> bool:
    """Whether a reader gets all state that changed, and no more because of lazy loading."""
    wanted = reader.filter.room.state
    is_unfiltered = wanted.is_default and wanted.matches_all_rooms
    return is_unfiltered and shared.changed is not None and not (reader.lazy and shared.changed)


def _is_shared(
    parts: Mapping[str, bytes], reader: SyncRequest, shared: SharedTimelineSlice
) -> bool:
    """Whether the section of a room has nothing but what all its readers get."""
    if reader.state_after is None:
        return parts.keys() == {"timeline"}
    is_alone = parts.keys() == {"timeline", reader.state_after}
    return is_alone and parts[reader.state_after] is shared.state_after


def _shared_section(
    parts: dict[str, bytes], reader: SyncRequest, shared: SharedTimelineSlice, count: UnreadCount
) -> bytes:
    """The section of a reader to whom nothing is new but what all see."""
    key = reader.state_after, count.notification, count.highlight
    section = shared.sections.get(key)
    if section is None:
        parts["unread_notifications"] = _count_json(count.notification, count.highlight)
        section = shared.sections[key] = section_json(parts)
    return section


def _add_unread(parts: dict[str, bytes], reader: SyncRequest, count: UnreadCount) -> None:
    if not reader.filter.room.timeline.unread_thread_notifications:
        parts["unread_notifications"] = _count_json(count.notification, count.highlight)
        return
    parts["unread_notifications"] = _count_json(*count.main)
    if count.threads:
        threads = {thread: _count_json(*counts) for thread, counts in count.threads.items()}
        parts["unread_thread_notifications"] = section_json(threads)


def _count_json(notifications: int, highlights: int) -> bytes:
    return b'{"highlight_count":%d,"notification_count":%d}' % (highlights, notifications)


def _changes_members(events: Iterable[StoredEvent]) -> bool:
    return any(is_member_event(stored.event) for stored in events)


class _Typed(msgspec.Struct):
    type: str


def _type_of(event: msgspec.Raw) -> str:
    return msgspec.json.decode(event, type=_Typed).type
