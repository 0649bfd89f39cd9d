"""What is new of a room for one connection: its timeline, the state that it wants, and its summary.

Spec: MSC4186
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import replace

from homeserver.protocol.event_kinds import is_member_event, is_plain_redaction
from homeserver.protocol.event_types import AVATAR_KEY, CANONICAL_ALIAS_KEY, MEMBER, NAME_KEY
from homeserver.protocol.sliding_sync.response import Hero, RoomResult
from homeserver.protocol.sliding_sync.room_config import RoomConfig
from homeserver.push.unread_counter import UnreadCount
from homeserver.rooms.discovery.heroes import heroes
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import StateKey
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.streams.tokens import stream_token
from homeserver.sync.rendering import render_for, render_state
from homeserver.sync.sections.timelines import SharedTimelineSlice, TimelineSlice
from homeserver.sync.sliding.bump_stamps import BumpStamps, bump_stamp_at, newest_bump
from homeserver.sync.sliding.required_states import RequiredStates
from homeserver.sync.sliding.room_reading import RoomReading, Sections
from homeserver.sync.sliding.shared_results import shared_result
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.update import encode

ALL_KEYS = (NAME_KEY, AVATAR_KEY)


class RoomResults:
    """Makes the results of rooms."""

    def __init__(self, rooms: RoomRegistry, sections: Sections, bump_stamps: BumpStamps) -> None:
        self._rooms = rooms
        self._timelines = sections.timelines
        self._states = sections.states
        self._required_states = RequiredStates(rooms, sections.states, sections.lazy_members)
        self._room_sections = sections.room_sections
        self._invitations = sections.invitations
        self._unread = sections.unread
        self._relations = sections.relations
        self._bump_stamps = bump_stamps

    async def get_ready(self, request: SyncRequest, room_nids: Iterable[int]) -> None:
        """Have in memory by which states it is decided what a user sees of rooms, read together."""
        roots: set[bytes] = set()
        for nid in room_nids:
            room = self._rooms.loaded(nid)
            own = None if room is None else room.member_events.get(request.user_id)
            joined = None if own is None else self._rooms.cached_event(own)
            if room is not None and joined is not None:
                newest = islice(reversed(room.timeline), request.timeline_limit + 1)
                roots.update(
                    stored.state_before
                    for stored in newest
                    if stored.visible_since <= joined.log_position
                )
        await self._rooms.get_states_ready(roots - {EMPTY})

    async def invited(self, reading: RoomReading) -> RoomResult:
        """A room that the user is invited to, or knocks at."""
        room, place = reading.room, reading.place
        events = await self._invitations.stripped_state(room, place)
        return RoomResult(
            place.membership,
            bump_stamp=bump_stamp_at(place.position),
            initial=True,
            is_dm=reading.is_dm or UNSET,
            stripped_state=Raw(encode(events)),
        )

    async def left(self, reading: RoomReading) -> RoomResult:
        """A room that the user left, or was kicked or banned from, up to that event."""
        room, place, config = reading.room, reading.place, reading.config
        timeline, state = await self._room_sections.until_leave(
            room, reading.request, place, reading.since
        )
        own = (await self._rooms.load_events(room, [place.event]))[place.event]
        wanted = {
            stored.event_nid: stored
            for stored in [*state, own]
            if stored is own or _is_wanted(config, _key_of(stored), reading.request.user_id)
        }
        result = RoomResult(
            place.membership,
            bump_stamp=bump_stamp_at(place.position),
            initial=True if reading.since is None else UNSET,
        )
        await self._add_timeline(result, reading, timeline)
        result.required_state = await self._state_json(reading, wanted.values())
        return result

    async def joined(self, reading: RoomReading) -> RoomResult | None:
        """A room that the user is in; `None` where nothing is new."""
        if reading.since is None:
            return await self._whole(reading)
        shared = self._shared_slice(reading, reading.since)
        if shared is not None:
            return await self._from_slice(reading, reading.since, shared)
        return await self._changes(reading, reading.since)

    def _shared_slice(self, reading: RoomReading, since: int) -> SharedTimelineSlice | None:
        """The slice that all members see alike, if nothing but its events is new."""
        room, request, sent = reading.room, reading.request, reading.sent
        if (
            room.last_position <= since
            or reading.place.position > since
            or reading.is_expanded
            or reading.is_dm != sent.is_dm
            or since < room.full_state_at
            or (sent.config is not reading.config and sent.config != reading.config)
        ):
            return None
        limit = reading.config.timeline_limit
        shared = self._timelines.shared(room, since, reading.now, limit)
        if (
            shared is None
            or shared.changes_state
            or not shared.events
            or shared.redacts
            or not shared.is_alike_for(request)
        ):
            return None
        return shared

    async def _from_slice(
        self, reading: RoomReading, since: int, shared: SharedTimelineSlice
    ) -> RoomResult:
        """The result for a member, which most of them have in common."""
        room, events = reading.room, shared.events
        state: list[StoredEvent] = []
        if reading.config.lazy_members:
            state = await self._states.lazy(
                room, reading.request, shared.senders, since, reading.now, events
            )
        if reading.shown is not None:
            _add_shown(reading, events)
        count = await self._count(reading) if reading.has_counts else None
        num_live = _count_live(events, reading.live_since)
        result = shared_result(shared, num_live, count, reading.lists)
        if state:
            result = msgspec.structs.replace(result, encoded=None)
            result.required_state = await self._state_json(reading, state)
        return result

    async def _whole(self, reading: RoomReading) -> RoomResult:
        room = reading.room
        timeline = await self._timelines.cut(room, reading.request, 0, reading.now)
        if reading.sent.upto:
            # The client may have events from before the user left: they do not adjoin these.
            timeline = replace(timeline, limited=True)
        state = await self._required_states.whole(reading, timeline.events)
        result = RoomResult(reading.place.membership, initial=True)
        result.bump_stamp = await self._bump_stamps.of(room)
        if reading.is_dm:
            result.is_dm = True
        await self._add_summary(result, reading, ALL_KEYS, is_whole=True)
        await self._add_timeline(result, reading, timeline)
        result.required_state = await self._state_json(reading, state)
        await self._add_counts(result, reading)
        return result

    async def _changes(self, reading: RoomReading, since: int) -> RoomResult | None:
        room, config = reading.room, reading.config
        new = await self._new_events(reading, since)
        changed = await self._states.entries_changed(room, since, reading.now)
        result = RoomResult(reading.place.membership)
        timeline = new
        if reading.is_expanded:
            timeline = await self._timelines.cut(room, reading.request, 0, reading.now)
            if any((event.stored.position or 0) <= since for event in timeline.seen):
                result.expanded_timeline = True
        state = await self._required_states.changed(reading, since, timeline, changed)
        removed = [
            key
            for key, stored in changed.items()
            if stored is None and _is_wanted(config, key, reading.request.user_id)
        ]
        is_resolved = since < room.full_state_at <= reading.now
        has_new_members = is_resolved or any(key[0] == MEMBER for key in changed)
        shown = _shown_keys(new, changed)
        is_dm_new = reading.is_dm != reading.sent.is_dm
        is_new = (
            new.seen
            or new.limited
            or result.expanded_timeline is True
            or state
            or removed
            or has_new_members
            or shown
            or is_dm_new
        )
        if not is_new and not await self._has_read(reading, since):
            return None
        if is_dm_new:
            result.is_dm = reading.is_dm
        if new.limited or newest_bump(reversed(new.events)) is not None:
            result.bump_stamp = await self._bump_stamps.of(room)
        if shown or has_new_members:
            await self._add_summary(result, reading, shown, is_whole=has_new_members)
        if timeline.seen or timeline.limited:
            await self._add_timeline(result, reading, timeline)
        if state:
            result.required_state = await self._state_json(reading, state)
        result.removed = removed
        await self._add_counts(result, reading)
        return result

    async def _new_events(self, reading: RoomReading, since: int) -> TimelineSlice:
        """The timeline above `since`."""
        room, request, now = reading.room, reading.request, reading.now
        if room.last_position <= since:
            return TimelineSlice([], limited=False, prev_batch=now)
        return await self._timelines.cut(room, request, since, now)

    async def _add_timeline(
        self, result: RoomResult, reading: RoomReading, timeline: TimelineSlice
    ) -> None:
        request, seen = reading.request, timeline.seen
        if timeline.limited:
            seen = await self._relations.bundled(request.caller, request.ignored, seen)
        _add_shown(reading, (event.stored for event in seen))
        events = render_for(request, seen, self._rooms.local_server.now_ms())
        result.timeline = Raw(events)
        result.event_ids = frozenset(event.stored.event.event_id for event in seen)
        result.prev_batch = stream_token(timeline.prev_batch)
        if timeline.limited:
            result.limited = True
        result.num_live = _count_live(timeline.events, reading.live_since)

    async def _add_summary(
        self,
        result: RoomResult,
        reading: RoomReading,
        keys: Iterable[StateKey],
        *,
        is_whole: bool,
    ) -> None:
        """Add the name and avatar, those of the `keys`, and, if `is_whole`, all about members."""
        room = reading.room
        state = await self._rooms.current(room, [NAME_KEY, AVATAR_KEY])
        name = _text(state.get(NAME_KEY), "name")
        if NAME_KEY in keys and not (name is None and result.initial is True):
            result.name = name
        if AVATAR_KEY in keys:
            avatar = _text(state.get(AVATAR_KEY), "url")
            if not (avatar is None and result.initial is True):
                result.avatar = avatar
        if is_whole:
            result.joined_count, result.invited_count = room.joined_count, room.invited_count
        if name is None:
            found = await self._heroes(reading)
            if found:
                result.heroes = found

    async def _heroes(self, reading: RoomReading) -> list[Hero]:
        room = reading.room
        user_ids = await heroes(self._rooms, room, reading.request.user_id)
        if reading.shown is not None:
            reading.shown.update(user_ids)
        keys = [(MEMBER, user_id) for user_id in user_ids]
        state = await self._rooms.current(room, keys)
        return [
            Hero(key[1], _text(state.get(key), "displayname"), _text(state.get(key), "avatar_url"))
            for key in keys
        ]

    async def _add_counts(self, result: RoomResult, reading: RoomReading) -> None:
        if reading.has_counts:
            count = await self._count(reading)
            result.notification_count, result.highlight_count = count.notification, count.highlight

    async def _count(self, reading: RoomReading) -> UnreadCount:
        room, user_id = reading.room, reading.request.user_id
        return self._unread.cached(room, user_id) or await self._unread.counts(room, user_id)

    async def _has_read(self, reading: RoomReading, since: int) -> bool:
        """Whether the unread counts changed because the user read something."""
        return reading.has_counts and await self._unread.was_read_after(
            reading.room, reading.request.user_id, since
        )

    async def _state_json(self, reading: RoomReading, state: Collection[StoredEvent]) -> Raw:
        _add_shown(reading, (stored for stored in state if is_member_event(stored.event)))
        return Raw(await render_state(reading.request, state, self._rooms.local_server))


def _add_shown(reading: RoomReading, events: Iterable[StoredEvent]) -> None:
    """Note the senders of events, and the users whom member events are about."""
    if reading.shown is not None:
        for stored in events:
            reading.shown.add(stored.event.sender)
            if is_member_event(stored.event):
                reading.shown.add(stored.event.state_key or "")


def _key_of(stored: StoredEvent) -> StateKey:
    return stored.event.type, stored.event.state_key or ""


def _is_wanted(config: RoomConfig, key: StateKey, user_id: str) -> bool:
    """Whether a client gets a change; of any member, as it may know each from a timeline."""
    return config.matches(key, user_id) or (config.lazy_members and key[0] == MEMBER)


def _shown_keys(
    new: TimelineSlice, changed: Mapping[StateKey, StoredEvent | None]
) -> list[StateKey]:
    """The parts of the summary that may be different: also what a redaction removed."""
    if new.limited or any(is_plain_redaction(stored.event) for stored in new.events):
        return [NAME_KEY, AVATAR_KEY]
    return [key for key in (NAME_KEY, AVATAR_KEY, CANONICAL_ALIAS_KEY) if key in changed]


def _count_live(events: Sequence[StoredEvent], live_since: int | None) -> int:
    """The number of events that have just occurred."""
    if live_since is None:
        return 0
    return sum((stored.position or 0) > live_since for stored in events)


def _text(stored: StoredEvent | None, name: str) -> str | None:
    value = None if stored is None else stored.shown.content.get(name)
    return value if isinstance(value, str) and value else None
