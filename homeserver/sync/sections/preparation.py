"""Preparation: what the sections of many rooms need is read together, before they are made.

A section waits for whatever is not in memory. After a restart that is all of it, and an account in
thousands of rooms would wait a dozen times for each. What is in memory costs nothing here.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Protocol

import msgspec

from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.discovery.heroes import heroes_if_nameless, may_be_named
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.aggregations import BundledAggregations
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.sync.sync_request import SyncRequest

MAX_EVENTS = 10_000  # state events that are read together
SMALL_ROOM = 500  # members, each of whom may have receipts


class EphemeralEvents(Protocol):
    """A source of the ephemeral events of rooms: typing, receipts."""

    def may_have_changed(self, room: int, since: int) -> bool:
        """Whether anything may have changed above a position; does not wait."""

    async def ephemeral_events(
        self, room: Room, user_id: str, since: int | None
    ) -> Sequence[msgspec.Raw]:
        """The events changed above `since`, for one user; all events for `None`."""

    async def get_ready(self, rooms: Collection[int]) -> None:
        """Have in memory what `ephemeral_events` needs, read together."""

    async def changed_rooms(self, rooms: Collection[int], since: int) -> Collection[int]:
        """The rooms, of those given by numeric id, in which something changed above `since`."""


class Preparation:
    """Reads what the full sections of rooms need, into the caches where they find it."""

    def __init__(
        self,
        rooms: RoomRegistry,
        ephemeral: Sequence[EphemeralEvents],
        relations: BundledAggregations,
        unread: UnreadCounts,
    ) -> None:
        self._rooms = rooms
        self._ephemeral = ephemeral
        self._relations = relations
        self._unread = unread

    async def prepare(self, request: SyncRequest, room_nids: Collection[int]) -> None:
        """Read what is missing of some rooms, for a request that wants all of them.

        Beyond `MAX_EVENTS`, rooms are left to their sections: with a few large rooms, all together
        would take too much memory.
        """
        await self._rooms.load_many(room_nids)
        rooms = [room for nid in room_nids if (room := self._rooms.loaded(nid)) is not None]
        small = [room.room_nid for room in rooms if len(room.members) <= SMALL_ROOM]
        for source in self._ephemeral:
            await source.get_ready(small)
        first = [_first_needed(room, request) for room in rooms]
        sums = accumulate(len(needed) for needed in first)
        prepared = bisect_right([*sums], MAX_EVENTS)
        await self._load(rooms[:prepared], first[:prepared])
        then = [self._then_needed(room, request) for room in rooms[:prepared]]
        await self._load(rooms[:prepared], then)
        await self._rooms.get_states_ready(
            {root for room in rooms[:prepared] for root in self._roots_needed(room, request)}
        )
        await self._unread.get_ready(rooms[:prepared], request.user_id)
        await self._relations.get_ready(
            [
                stored.event.event_id
                for room in rooms[:prepared]
                if len(room.timeline) > request.timeline_limit
                for stored in _shown(room, request)
                if stored.event.state_key is None
            ]
        )

    async def _load(self, rooms: Sequence[Room], wanted: Sequence[Iterable[int]]) -> None:
        await self._rooms.get_events_ready(
            {room: nids for room, each in zip(rooms, wanted, strict=True) if (nids := [*each])}
        )

    def _then_needed(self, room: Room, request: SyncRequest) -> Sequence[int]:
        """What those of `_first_needed` lead to: the event that the reader's own one replaced."""
        nid = room.member_events.get(request.user_id)
        own = None if nid is None else self._rooms.cached_event(nid)
        return () if own is None or own.replaces is None else (own.replaces,)

    def _roots_needed(self, room: Room, request: SyncRequest) -> Iterator[bytes]:
        """The states at events before the user's own: what they may see depends on them."""
        nid = room.member_events.get(request.user_id)
        own = None if nid is None else self._rooms.cached_event(nid)
        if own is not None:
            for stored in _shown(room, request):
                if stored.visible_since <= own.log_position and stored.state_before != EMPTY:
                    yield stored.state_before


def _first_needed(room: Room, request: SyncRequest) -> list[int]:
    """The state events of a section, as far as they are known without reading any."""
    if not request.lazy:
        return [*room.state.values(), *room.member_events.values()]
    members = {request.user_id, *[stored.event.sender for stored in _shown(room, request)]}
    if not may_be_named(room):
        members.update(heroes_if_nameless(room, request.user_id))
    return [
        *room.state.values(),
        *(room.member_events[each] for each in members if each in room.member_events),
    ]


def _shown(room: Room, request: SyncRequest) -> Iterator[StoredEvent]:
    """About the events that the timeline of a section will have."""
    return islice(reversed(room.timeline), request.timeline_limit + 1)
