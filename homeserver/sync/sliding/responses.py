"""The response to one request of a connection, and the state of the connection after it.

A response is made from a sync point, like one of `/sync`: what happens while it is being made is
for the next one. Only rooms are looked at that the request asks for and that may have something
new: they changed, or the client does not have them, or not all that it wants of them.

Spec: MSC4186
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.protocol.filters import Filter, RoomEventFilter, RoomFilter
from homeserver.protocol.sliding_sync.request import SlidingSyncRequest
from homeserver.protocol.sliding_sync.response import ExtensionResults, RoomResult
from homeserver.protocol.sliding_sync.room_config import RoomConfig
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import MemberRooms, Membership
from homeserver.sync.active_rooms import PREFETCH_ROOMS, ActiveRooms, was_joined
from homeserver.sync.sliding.connection import (
    LIVE,
    NEVER,
    NOTHING_SENT,
    ConnectionState,
    OfferedState,
    SentRoom,
)
from homeserver.sync.sliding.extensions import Extensions, ExtensionUpdate
from homeserver.sync.sliding.room_filters import RoomFilters
from homeserver.sync.sliding.room_lists import ListReader, RoomLists, ScopedRoom
from homeserver.sync.sliding.room_results import RoomReading, RoomResults
from homeserver.sync.sync_points import SyncPoints
from homeserver.sync.sync_request import STATE_AFTER, SyncRequest
from homeserver.sync.sync_span import SyncSpan
from homeserver.sync.user_change_queues import USER_DATA

MAX_CONFIGS = 50  # for which the requests of rooms are kept while a response is made


@dataclass(slots=True)
class Answer:
    """What a response has, and the state after it. `is_new` if it has anything new."""

    counts: Mapping[str, int]
    rooms: Mapping[str, RoomResult]
    extensions: ExtensionResults
    offered: OfferedState
    is_new: bool


@dataclass(slots=True)
class _Draft:
    """A response while it is made.

    `changed` is what changed for the user since the state, `None` where everything may have;
    `with_data` are the rooms with new account data, and `direct` the direct chats, if they may have
    changed. `sent` is what the connection has after the response, of the rooms where that changed.
    """

    request: SlidingSyncRequest
    reader: SyncRequest
    state: ConnectionState
    span: SyncSpan
    changed: set[int] | None
    places: MemberRooms
    direct: frozenset[int] | None = None
    with_data: set[int] = field(default_factory=set)
    extensions: ExtensionUpdate = field(default_factory=ExtensionUpdate)
    results: dict[str, RoomResult] = field(default_factory=dict)
    sent: dict[int, SentRoom] = field(default_factory=dict)
    requests: dict[RoomConfig, SyncRequest] = field(default_factory=dict)

    def request_of(self, config: RoomConfig) -> SyncRequest:
        """The request to `/sync` for the rooms with a config."""
        found = self.requests.get(config)
        if found is None:
            if len(self.requests) >= MAX_CONFIGS:
                self.requests.clear()
            wanted = RoomFilter(
                timeline=RoomEventFilter(limit=config.timeline_limit),
                state=RoomEventFilter(lazy_load_members=not config.wants_all_members),
            )
            found = self.requests[config] = SyncRequest(
                self.reader.caller,
                Filter(room=wanted),
                False,
                STATE_AFTER,
                self.reader.ignored,
                self.reader.connection,
            )
        return found


class Responses:
    """Makes responses."""

    def __init__(
        self,
        rooms: RoomRegistry,
        sync_points: SyncPoints,
        lists: RoomLists,
        filters: RoomFilters,
        results: RoomResults,
        extensions: Extensions,
        active_rooms: ActiveRooms,
        clock: Clock,
    ) -> None:
        self._rooms = rooms
        self._sync_points = sync_points
        self._lists = lists
        self._filters = filters
        self._results = results
        self._extensions = extensions
        self._active_rooms = active_rooms
        self._clock = clock

    async def make(
        self,
        request: SlidingSyncRequest,
        reader: SyncRequest,
        state: ConnectionState,
        intern: Callable[[RoomConfig], RoomConfig],
    ) -> Answer:
        """What is new for a connection in a state."""
        now, changed, places = await self._sync_points.take(
            reader.user_id, state.token, all_rooms=True
        )
        span = SyncSpan(state.token, now)
        draft = _Draft(request, reader, state, span, changed, places)
        scope = await self._lists.scope(request, ListReader(reader, places, state.rooms, intern))
        if request.extensions.account_data is not None:
            await self._extensions.add_account_data(draft.extensions, reader, state, span)
        await self._add_rooms(draft, scope.rooms)
        self._note_missed(draft, scope.rooms)
        await self._add_device_data(draft)
        token = span.token
        has_data = request.extensions.account_data is not None
        offered = OfferedState(
            token,
            draft.sent,
            token if request.extensions.e2ee else state.e2ee,
            token if has_data else state.account_data,
        )
        is_new = bool(draft.results) or draft.extensions.is_new
        return Answer(scope.counts, draft.results, draft.extensions.results, offered, is_new)

    async def _add_rooms(self, draft: _Draft, scope: Mapping[int, ScopedRoom]) -> None:
        candidates = await self._candidates(draft, scope)
        time_slice = TimeSlice(self._clock)
        for index, nid in enumerate(candidates):
            if index % PREFETCH_ROOMS == 0:
                upcoming = candidates[index : index + PREFETCH_ROOMS]
                await self._active_rooms.prefetch(draft.places, upcoming)
            if time_slice.is_over:
                await time_slice.next()
            place = draft.places[nid]
            if place.position <= draft.span.of_room(nid)[1]:
                await self._add_room(draft, nid, place, scope[nid])

    async def _candidates(self, draft: _Draft, scope: Mapping[int, ScopedRoom]) -> list[int]:
        """The rooms, of those in scope, that may have something new."""
        state, changed = draft.state, draft.changed
        if changed is None or USER_DATA in changed:
            draft.direct = await self._filters.direct_nids(draft.reader.user_id)
        if changed is None and state.token is not None:
            known = [nid for nid in scope if nid in state.rooms]
            changed = await self._active_rooms.with_ephemeral(known, state.token)
        for room_id in draft.extensions.account_data:
            draft.with_data.add(await self._rooms.find_room_nid(room_id) or 0)
        touched = draft.with_data.union(changed or ())
        sent = state.rooms
        return [
            nid
            for nid, scoped in scope.items()
            if nid in touched
            or not _is_settled(sent.get(nid, NOTHING_SENT), scoped)
            or (draft.direct is not None and (nid in draft.direct) != sent[nid].is_dm)
        ]

    async def _add_room(
        self, draft: _Draft, nid: int, place: Membership, scoped: ScopedRoom
    ) -> None:
        room = self._rooms.loaded(nid) or await self._rooms.by_number(nid)
        is_joined = place.membership == "join"
        if room is None or (
            is_joined and room.partial is not None and scoped.config.wants_all_members
        ):
            return
        reading = await self._reading(draft, room, place, scoped)
        if is_joined:
            result = await self._results.joined(reading)
        elif reading.since is not None and place.position <= reading.since:
            result = None
        elif place.membership in ("invite", "knock"):
            result = await self._results.invited(reading)
        else:
            result = await self._results.left(reading)
        if result is not None:
            result.lists = scoped.lists or result.lists
            draft.results[room.room_id] = result
            draft.span.has_room(nid, reading.now)
        if is_joined:
            await self._add_extensions(draft, reading, scoped)
        draft.sent[nid] = _sent_after(draft, nid, reading, scoped, result)

    async def _reading(
        self, draft: _Draft, room: Room, place: Membership, scoped: ScopedRoom
    ) -> RoomReading:
        nid, config = room.room_nid, scoped.config
        sent = draft.state.rooms.get(nid, NOTHING_SENT)
        since = draft.state.since(nid, sent.upto)
        live_since, now = draft.span.of_room(nid)
        if since is not None and await self._has_to_begin(draft, room, place, config, since):
            since = None
        direct = draft.direct
        is_dm = sent.is_dm if direct is None else nid in direct
        if direct is None and sent is NOTHING_SENT:
            draft.direct = await self._filters.direct_nids(draft.reader.user_id)
            is_dm = nid in draft.direct
        return RoomReading(
            room,
            place,
            draft.request_of(config),
            config,
            sent,
            since,
            now,
            live_since,
            is_dm,
            draft.request.has_counts,
        )

    async def _has_to_begin(
        self, draft: _Draft, room: Room, place: Membership, config: RoomConfig, since: int
    ) -> bool:
        """Whether the client has to replace what it has of a room."""
        user_id = draft.reader.user_id
        if place.membership != "join":
            return place.position > since and not await was_joined(
                self._rooms, room, user_id, place.event, since
            )
        if since < room.full_state_at and config.wants_all_members:
            return True
        return place.position > since and not await was_joined(
            self._rooms, room, user_id, place.event, since
        )

    async def _add_extensions(
        self, draft: _Draft, reading: RoomReading, scoped: ScopedRoom
    ) -> None:
        """Add what the extensions have of a room that the user is in."""
        room, state, sent = reading.room, draft.state, reading.sent
        update, nid = draft.extensions, reading.room.room_nid
        is_fresh = reading.since is None
        if scoped.receipts:
            since = None if is_fresh else state.since(nid, sent.receipts)
            shown = _event_ids(draft.results.get(room.room_id))
            await self._extensions.add_receipts(update, draft.reader, room, since, shown)
        if scoped.typing:
            since = None if is_fresh else state.since(nid, sent.typing)
            await self._extensions.add_typing(update, draft.reader, room, since)
        if scoped.account_data:
            is_first = is_fresh or sent.account_data != LIVE
            await self._extensions.add_room_data(
                update, draft.reader, room.room_id, is_first=is_first
            )

    def _note_missed(self, draft: _Draft, scope: Mapping[int, ScopedRoom]) -> None:
        """Note up to where the client has the rooms that it did not ask for now."""
        state, changed = draft.state, draft.changed
        if state.token is None:
            return
        nids: Collection[int] = state.rooms.keys()
        if changed is not None:
            nids = changed | draft.with_data
        for nid in nids:
            sent = state.rooms.get(nid)
            if sent is not None and nid not in scope:
                draft.sent[nid] = _sent_now(draft, nid, sent, ScopedRoom(sent.config), upto=False)

    async def _add_device_data(self, draft: _Draft) -> None:
        wanted, reader = draft.request.extensions, draft.reader
        if wanted.to_device is not None:
            await self._extensions.add_messages(
                draft.extensions, reader, wanted.to_device, draft.span
            )
        if wanted.e2ee:
            await self._extensions.add_e2ee(
                draft.extensions, reader, draft.state, draft.span, draft.changed, draft.places
            )


def _is_settled(sent: SentRoom, scoped: ScopedRoom) -> bool:
    """Whether the client has all that it wants of a room that has not changed."""
    return (
        sent.upto == LIVE
        and (sent.config is scoped.config or sent.config == scoped.config)
        and (sent.receipts == LIVE or not scoped.receipts)
        and (sent.typing == LIVE or not scoped.typing)
        and (sent.account_data == LIVE or not scoped.account_data)
    )


def _sent_after(
    draft: _Draft, nid: int, reading: RoomReading, scoped: ScopedRoom, result: RoomResult | None
) -> SentRoom:
    """What the connection has of a room after it was looked at."""
    sent, config = reading.sent, scoped.config
    limit = sent.limit
    if config.timeline_limit > limit or (result is not None and result.limited is True):
        limit = config.timeline_limit
    if reading.since is None:
        sent, limit = NOTHING_SENT, config.timeline_limit
    return _sent_now(draft, nid, sent, scoped)._replace(
        limit=limit, is_dm=reading.is_dm, config=config
    )


def _sent_now(
    draft: _Draft, nid: int, sent: SentRoom, scoped: ScopedRoom, *, upto: bool = True
) -> SentRoom:
    """`sent` after a response that has the given parts of a room which may have changed."""
    token = draft.state.token
    at = NEVER if token is None else token.of_room(nid)

    def after(before: int, *, is_sent: bool) -> int:
        if is_sent:
            return LIVE
        return at if before == LIVE else before

    account_data = sent.account_data
    if scoped.account_data:
        account_data = LIVE
    elif nid in draft.with_data:
        account_data = NEVER
    return sent._replace(
        upto=after(sent.upto, is_sent=upto),
        receipts=after(sent.receipts, is_sent=scoped.receipts),
        typing=after(sent.typing, is_sent=scoped.typing),
        account_data=account_data,
    )


def _event_ids(result: RoomResult | None) -> Collection[str]:
    """The ids of the events in the timeline of a result."""
    return () if result is None else result.event_ids
