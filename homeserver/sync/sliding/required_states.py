"""The state of a room that a client wants and does not have.

Spec: MSC4186
"""

from collections.abc import Iterable, Mapping, Sequence

from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.event_types import MEMBER
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room, StateKey
from homeserver.sync.sections.lazy_members import LazyMembers
from homeserver.sync.sections.room_state import RoomStateSections
from homeserver.sync.sections.timelines import TimelineSlice
from homeserver.sync.sliding.room_reading import RoomReading


class RequiredStates:
    """Finds the state events of results."""

    def __init__(
        self, rooms: RoomRegistry, states: RoomStateSections, lazy_members: LazyMembers
    ) -> None:
        self._rooms = rooms
        self._states = states
        self._lazy_members = lazy_members

    async def whole(self, reading: RoomReading, events: Sequence[StoredEvent]) -> list[StoredEvent]:
        """The state for a client that has nothing of the room; `events` are the timeline."""
        room, user_id = reading.room, reading.request.user_id
        others, members = await self._states.at(room, reading.now)
        keys = reading.config.matching(others, members, user_id)
        state = await self._load(room, keys, others, members)
        state += await self._lazily(reading, events, None, keys)
        self._mark_sent(reading, keys)
        return state

    async def changed(
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
                config.matches(key, reading.request.user_id)
                or (config.lazy_members and key[0] == MEMBER and key[1] in members)
            )
        ]
        sent_keys = {(stored.event.type, stored.event.state_key or "") for stored in state}
        before = reading.sent.config
        if config is not before and config.required_state != before.required_state:
            others, present = await self._states.at(room, now)
            keys = [
                key
                for key in config.matching(others, present, reading.request.user_id)
                if key not in sent_keys and not before.matches(key, reading.request.user_id)
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
