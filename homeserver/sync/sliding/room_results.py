"""What is new of a room for one connection: its timeline, the state that it wants, and its summary.

Spec: MSC4186
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from msgspec import UNSET, Raw, UnsetType

from homeserver.protocol.event_kinds import is_member_event, is_plain_redaction
from homeserver.protocol.event_types import AVATAR_KEY, CANONICAL_ALIAS_KEY, MEMBER, NAME_KEY
from homeserver.protocol.sliding_sync.response import Hero, RoomResult
from homeserver.protocol.sliding_sync.room_config import RoomConfig
from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.discovery.heroes import heroes
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.aggregations import BundledAggregations
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room, StateKey
from homeserver.rooms.room.user_rooms import Membership
from homeserver.streams.tokens import stream_token
from homeserver.sync.rendering import render_for, render_state
from homeserver.sync.sections.invitations import Invitations
from homeserver.sync.sections.lazy_members import LazyMembers
from homeserver.sync.sections.room_sections import RoomSections
from homeserver.sync.sections.room_state import RoomStateSections
from homeserver.sync.sections.timelines import Timelines, TimelineSlice
from homeserver.sync.sliding.bump_stamps import BumpStamps, bump_stamp_at, newest_bump
from homeserver.sync.sliding.connection import SentRoom
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.update import encode

ALL_KEYS = (NAME_KEY, AVATAR_KEY)


@dataclass(frozen=True, slots=True)
class RoomReading:
    """One room for one response: what the client has of it, and up to where it is read.

    `since` is the position up to which the client has the room, `None` if it has nothing of it, or
    has to replace what it has. `live_since` is the position above which events have just occurred;
    `None` in the first response of a connection.
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

    @property
    def is_expanded(self) -> bool:
        """Whether more events are wanted than the client has."""
        return self.config.timeline_limit > self.sent.limit


@dataclass(frozen=True, slots=True)
class Sections:
    """The parts of `/sync` that sliding sync shares."""

    timelines: Timelines
    states: RoomStateSections
    lazy_members: LazyMembers
    room_sections: RoomSections
    invitations: Invitations
    unread: UnreadCounts
    relations: BundledAggregations


class RoomResults:
    """Makes the results of rooms."""

    def __init__(self, rooms: RoomRegistry, sections: Sections, bump_stamps: BumpStamps) -> None:
        self._rooms = rooms
        self._timelines = sections.timelines
        self._states = sections.states
        self._lazy_members = sections.lazy_members
        self._room_sections = sections.room_sections
        self._invitations = sections.invitations
        self._unread = sections.unread
        self._relations = sections.relations
        self._bump_stamps = bump_stamps

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
            if _is_wanted(config, stored) or stored is own
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
        return await self._changes(reading, reading.since)

    async def _whole(self, reading: RoomReading) -> RoomResult:
        room = reading.room
        timeline = await self._timelines.cut(room, reading.request, 0, reading.now)
        if reading.sent.upto:
            # The client may have events from before the user left: they do not adjoin these.
            timeline = replace(timeline, limited=True)
        others, members = await self._states.at(room, reading.now)
        keys = _matching(reading.config, others, members)
        state = await self._load(room, keys, others, members)
        state += await self._lazily(reading, timeline.events, None, keys)
        self._mark_sent(reading, keys)
        result = RoomResult(room.members[reading.request.user_id], initial=True)
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
        state = await self._changed_state(reading, since, timeline, changed)
        removed = [key for key, stored in changed.items() if stored is None and config.matches(key)]
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

    async def _changed_state(
        self,
        reading: RoomReading,
        since: int,
        timeline: TimelineSlice,
        changed: Mapping[StateKey, StoredEvent | None],
    ) -> list[StoredEvent]:
        """The state that the client wants and does not have."""
        room, config, now = reading.room, reading.config, reading.now
        known = changed.keys()
        if config.lazy_members and timeline.limited and any(key[0] == MEMBER for key in known):
            # After a gap the client drops the members that it was not sent: they may have changed.
            sent = set(self._lazy_members.sent_members(reading.request, room.room_nid))
            members = {user_id for event_type, user_id in known if event_type == MEMBER} & sent
        else:
            members = {user_id for event_type, user_id in known if event_type == MEMBER}
        state = [
            stored
            for key, stored in changed.items()
            if stored is not None
            and (
                config.matches(key)
                or (config.lazy_members and key[0] == MEMBER and key[1] in members)
            )
        ]
        sent_keys = {(stored.event.type, stored.event.state_key or "") for stored in state}
        before = reading.sent.config
        if config is not before and config.required_state != before.required_state:
            others, present = await self._states.at(room, now)
            keys = [
                key
                for key in _matching(config, others, present)
                if key not in sent_keys and not before.matches(key)
            ]
            state += await self._load(room, keys, others, present)
            sent_keys.update(keys)
        self._mark_sent(reading, sent_keys)
        state += await self._lazily(reading, timeline.events, since, sent_keys)
        if since < room.full_state_at <= now and config.lazy_members:
            state += await self._states.corrected(room, reading.request, now)
        return state

    async def _lazily(
        self,
        reading: RoomReading,
        events: Sequence[StoredEvent],
        since: int | None,
        sent: Iterable[StateKey],
    ) -> list[StoredEvent]:
        """The member events that the events need, and that the client does not have."""
        if not reading.config.lazy_members:
            return []
        needed = {stored.event.sender for stored in events}
        needed.update(
            stored.event.state_key or "" for stored in events if is_member_event(stored.event)
        )
        needed.difference_update(key[1] for key in sent if key[0] == MEMBER)
        return await self._states.lazy(
            reading.room, reading.request, sorted(needed), since, reading.now, events
        )

    def _mark_sent(self, reading: RoomReading, keys: Iterable[StateKey]) -> None:
        if reading.config.lazy_members:
            members = [key[1] for key in keys if key[0] == MEMBER]
            self._lazy_members.mark_sent(
                reading.request, reading.room.room_nid, members, reading.now
            )

    async def _load(
        self,
        room: Room,
        keys: Iterable[StateKey],
        others: Mapping[StateKey, int],
        members: Mapping[str, int],
    ) -> list[StoredEvent]:
        numbers = [members[key[1]] if key[0] == MEMBER else others[key] for key in keys]
        return await self._rooms.load_many_events(room, numbers)

    async def _add_timeline(
        self, result: RoomResult, reading: RoomReading, timeline: TimelineSlice
    ) -> None:
        request, seen = reading.request, timeline.seen
        if timeline.limited:
            seen = await self._relations.bundled(request.caller, request.ignored, seen)
        events = render_for(request, seen, self._rooms.local_server.now_ms())
        result.timeline = Raw(events)
        result.event_ids = frozenset(event.stored.event.event_id for event in seen)
        result.prev_batch = stream_token(timeline.prev_batch)
        if timeline.limited:
            result.limited = True
        live_since = reading.live_since
        result.num_live = (
            0
            if live_since is None
            else sum((event.stored.position or 0) > live_since for event in seen)
        )

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
        keys = [(MEMBER, user_id) for user_id in user_ids]
        state = await self._rooms.current(room, keys)
        return [
            Hero(key[1], _text(state.get(key), "displayname"), _text(state.get(key), "avatar_url"))
            for key in keys
        ]

    async def _add_counts(self, result: RoomResult, reading: RoomReading) -> None:
        if not reading.has_counts:
            return
        room, user_id = reading.room, reading.request.user_id
        count = self._unread.cached(room, user_id)
        if count is None:
            count = await self._unread.counts(room, user_id)
        result.notification_count, result.highlight_count = count.notification, count.highlight

    async def _has_read(self, reading: RoomReading, since: int) -> bool:
        """Whether the unread counts changed because the user read something."""
        return reading.has_counts and await self._unread.was_read_after(
            reading.room, reading.request.user_id, since
        )

    async def _state_json(
        self, reading: RoomReading, state: Iterable[StoredEvent]
    ) -> Raw | UnsetType:
        return Raw(await render_state(reading.request, state, self._rooms.local_server))


def _matching(
    config: RoomConfig, others: Mapping[StateKey, int], members: Mapping[str, int]
) -> list[StateKey]:
    return [key for key in config.candidates(others, members) if config.matches(key)]


def _is_wanted(config: RoomConfig, stored: StoredEvent) -> bool:
    key = stored.event.type, stored.event.state_key or ""
    return config.matches(key) or (config.lazy_members and key[0] == MEMBER)


def _shown_keys(
    new: TimelineSlice, changed: Mapping[StateKey, StoredEvent | None]
) -> list[StateKey]:
    """The parts of the summary that may be different: also what a redaction removed."""
    if new.limited or any(is_plain_redaction(stored.event) for stored in new.events):
        return [NAME_KEY, AVATAR_KEY]
    return [key for key in (NAME_KEY, AVATAR_KEY, CANONICAL_ALIAS_KEY) if key in changed]


def _text(stored: StoredEvent | None, name: str) -> str | None:
    value = None if stored is None else stored.shown.content.get(name)
    return value if isinstance(value, str) and value else None
