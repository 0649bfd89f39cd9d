"""The response to one request of a connection, and the state of the connection after it.

A response is made from a sync point, like one of `/sync`: what happens while it is being made is
for the next one. Only rooms are looked at that the request asks for and that may have something
new: they changed, or the client does not have them, or not all that it wants of them.

Spec: MSC4186
"""

from collections.abc import Collection, Sequence

from msgspec import UNSET

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.concurrency.deferreds import gather_all
from homeserver.protocol.sliding_sync.request import SlidingSyncRequest
from homeserver.protocol.sliding_sync.response import RoomResult
from homeserver.protocol.sliding_sync.room_config import RoomConfig
from homeserver.rooms.history.own_membership import was_joined
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import Membership
from homeserver.sync.active_rooms import ActiveRooms
from homeserver.sync.sections.preparation import Preparation
from homeserver.sync.sliding.connection import (
    LIVE,
    NEVER,
    NOTHING_SENT,
    ConnectionState,
    ListedScope,
    OfferedState,
    ScopedRoom,
    SentProfiles,
    SlidingConnection,
)
from homeserver.sync.sliding.extensions import Extensions
from homeserver.sync.sliding.profile_extension import ProfileExtension
from homeserver.sync.sliding.response_draft import Answer, ResponseDraft, is_settled
from homeserver.sync.sliding.room_filters import RoomFilters
from homeserver.sync.sliding.room_lists import ListReader, RoomLists
from homeserver.sync.sliding.room_reading import RoomReading
from homeserver.sync.sliding.room_results import RoomResults
from homeserver.sync.sliding.sticky_extension import StickyExtension
from homeserver.sync.sync_points import SyncPoint, SyncPoints
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.sync_span import SyncSpan
from homeserver.sync.user_change_queues import SUBSCRIPTIONS, USER_DATA, UserChangeQueue

CONCURRENT_ROOMS = 16
PREPARED_ROOMS = 6 * CONCURRENT_ROOMS  # that are read together


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
        profiles: ProfileExtension,
        sticky: StickyExtension,
        active_rooms: ActiveRooms,
        preparation: Preparation,
        clock: Clock,
    ) -> None:
        self._sticky = sticky
        self._rooms = rooms
        self._sync_points = sync_points
        self._lists = lists
        self._filters = filters
        self._results = results
        self._extensions = extensions
        self._profiles = profiles
        self._active_rooms = active_rooms
        self._preparation = preparation
        self._clock = clock

    async def make(
        self, request: SlidingSyncRequest, reader: SyncRequest, connection: SlidingConnection
    ) -> Answer:
        """What is new for a connection in its state."""
        draft = await self._begin(request, reader, connection)
        wanted, span = request.body.extensions, draft.span
        if draft.changed is None or draft.changed or draft.entered is None or draft.entered:
            if wanted.account_data is not None and _may_have_new_data(draft):
                await self._extensions.add_account_data(draft.extensions, reader, draft.state, span)
            await self._add_rooms(draft)
            draft.note_missed()
        if wanted.profiles is not None:
            await self._profiles.add(draft, wanted.profiles)
        await self._add_device_data(draft)
        token = span.token
        offered = OfferedState(
            token,
            draft.sent,
            token if wanted.e2ee else draft.state.e2ee,
            draft.state.account_data if wanted.account_data is None else token,
            draft.scope if draft.is_complete else None,
            draft.state.threads if wanted.threads is None else token,
            draft.state.profiles
            if wanted.profiles is None
            else SentProfiles(token, wanted.profiles.fields),
            draft.profiled,
        )
        is_new = bool(draft.results) or draft.extensions.is_new
        return Answer(draft.scope.counts, draft.results, draft.extensions.results, offered, is_new)

    def has_nothing(
        self,
        request: SlidingSyncRequest,
        reader: SyncRequest,
        connection: SlidingConnection,
        queue: UserChangeQueue,
    ) -> bool:
        """Whether it is clear, without making a response, that nothing is new for a connection.

        It is if the client has everything that it asks for up to its token, and the user's queue
        has nothing after that which concerns it. Presence never does.
        """
        state, wanted = connection.state, request.body.extensions
        changed = None if state.token is None else queue.changed_since(state.token)
        if changed is None:
            return False
        news = [what for what in changed if what >= USER_DATA]
        if request.body.is_of_device:
            only_rooms = all(USER_DATA < what < SUBSCRIPTIONS for what in news)
            return only_rooms and self._extensions.have_no_device_news(reader, wanted, state, news)
        return (
            not news
            and state.settled is not None
            and state.settled.body is request.body
            and not (wanted.to_device or wanted.e2ee or wanted.threads)
            and not (wanted.sticky or wanted.profiles)
        )

    async def _begin(
        self, request: SlidingSyncRequest, reader: SyncRequest, connection: SlidingConnection
    ) -> ResponseDraft:
        """The draft at a sync point, with the scope of the request.

        The scope follows from that of the request before, if the client has everything of it and
        only something happened in rooms: then only memberships of these are needed.
        """
        state = connection.state
        point = await self._sync_points.take(reader.user_id, state.token)
        scope, entered = None, None
        changed = point.changed
        if changed is not None and (
            USER_DATA not in changed or not await self._lists_depend_on_new_data(reader, state)
        ):
            scope = self._scope_after(state.settled, request, state, point)
        if scope is None:
            if changed is not None:
                point = await self._sync_points.take(reader.user_id, state.token, all_rooms=True)
            list_reader = ListReader(reader, point.rooms, state.rooms)
            scope = await self._lists.scope(request.body, list_reader)
            connection.use_scope(scope)
        elif state.settled is not None:
            entered = _entered(state.settled, scope)
        draft = ResponseDraft(
            request,
            reader,
            state,
            SyncSpan(state.token, point.now),
            point.changed,
            point.rooms,
            scope,
            connection.requests,
            entered,
        )
        if entered is None or entered:
            draft.direct = await self._filters.direct_nids(reader.user_id)
        return draft

    async def _lists_depend_on_new_data(self, reader: SyncRequest, state: ConnectionState) -> bool:
        """Whether account data changed by which rooms are filtered."""
        if state.token is None:
            return False
        return await self._filters.depend_on_data_since(
            reader.user_id, state.token.of_user(reader.user_id)
        )

    def _scope_after(
        self,
        scope: ListedScope | None,
        request: SlidingSyncRequest,
        state: ConnectionState,
        point: SyncPoint,
    ) -> ListedScope | None:
        """What became of a scope of `state` until a sync point, if it can be told.

        It cannot if the user joined or left a room. Rooms that come into the scope without a change
        of their own need their memberships.
        """
        token = state.token
        if scope is None or token is None or point.changed is None:
            return None
        if scope.body is not request.body:
            return None
        changed = {nid: place for nid in point.changed if (place := point.rooms.get(nid))}
        for nid, place in changed.items():
            if place.membership != "join" or place.position > token.of_room(nid):
                return None
        after = self._lists.scope_after(scope, changed)
        if after is None or any(nid not in point.rooms for nid in _entered(scope, after)):
            return None
        return after

    async def _add_rooms(self, draft: ResponseDraft) -> None:
        candidates = await self._candidates(draft)
        time_slice = TimeSlice(self._clock)
        for start in range(0, len(candidates), CONCURRENT_ROOMS):
            if len(candidates) > 1 and start % PREPARED_ROOMS == 0:
                await self._prepare(draft, candidates[start : start + PREPARED_ROOMS])
            if time_slice.is_over:
                await time_slice.next()
            part = candidates[start : start + CONCURRENT_ROOMS]
            if len(part) == 1:
                await self._add_room(draft, part[0])
            else:
                # What was not read before, such as unread counts, waits for the database.
                await gather_all(self._add_room(draft, nid) for nid in part)

    async def _prepare(self, draft: ResponseDraft, room_nids: Sequence[int]) -> None:
        """Read together what is missing of some rooms: all of it of those that the client lacks."""
        known: list[int] = []
        new: dict[RoomConfig, list[int]] = {}
        for nid in room_nids:
            if draft.places[nid].membership == "join":
                is_new = draft.state.rooms.get(nid, NOTHING_SENT).upto == NEVER
                config = draft.scope.rooms[nid].config
                (new.setdefault(config, []) if is_new else known).append(nid)
        await self._rooms.load_many(known)
        for config, nids in new.items():
            request = draft.request_of(config)
            await self._preparation.prepare(request, nids)
            await self._results.get_ready(request, nids)

    async def _candidates(self, draft: ResponseDraft) -> Sequence[int]:
        """The rooms, of those in scope, that may have something new."""
        state, changed, scope = draft.state, draft.changed, draft.scope.rooms
        if changed is None and state.token is not None:
            known = [nid for nid in scope if nid in state.rooms]
            changed = await self._active_rooms.with_ephemeral(known, state.token)
        if draft.extensions.account_data:
            with_data = await self._rooms.find_room_nids(draft.extensions.account_data)
            draft.with_data.update(with_data.values())
        touched = draft.with_data.union(changed or ())
        direct, sent = draft.direct, state.rooms
        if draft.entered is not None:
            return [nid for nid in touched.union(draft.entered) if nid in scope]
        return [
            nid
            for nid, scoped in scope.items()
            if nid in touched
            or not is_settled(sent.get(nid, NOTHING_SENT), scoped)
            or (direct is not None and (nid in direct) != sent[nid].is_dm)
        ]

    async def _add_room(self, draft: ResponseDraft, nid: int) -> None:
        place, scoped = draft.places[nid], draft.scope.rooms[nid]
        if place.position > draft.span.of_room(nid)[1]:
            draft.is_complete = False
            return
        room = self._rooms.loaded(nid) or await self._rooms.by_number(nid)
        is_joined = place.membership == "join"
        if room is None or (
            is_joined and room.partial is not None and scoped.config.wants_all_members
        ):
            draft.is_complete = False
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
            if scoped.lists and result.lists is UNSET:
                result.lists = scoped.lists
            draft.results[room.room_id] = result
            draft.span.has_room(nid, reading.now)
        if is_joined:
            await self._add_extensions(draft, reading, scoped)
        draft.note_sent(nid, reading, scoped, result)

    async def _reading(
        self, draft: ResponseDraft, room: Room, place: Membership, scoped: ScopedRoom
    ) -> RoomReading:
        nid, config = room.room_nid, scoped.config
        sent = draft.state.rooms.get(nid, NOTHING_SENT)
        since = draft.state.since(nid, sent.upto)
        live_since, now = draft.span.of_room(nid)
        if (
            since is not None
            and since < max(place.position, room.full_state_at)
            and await self._has_to_begin(draft, room, place, config, since)
        ):
            since = None
        is_dm = sent.is_dm if draft.direct is None else nid in draft.direct
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
            draft.request.body.has_counts,
            scoped.lists,
            set() if scoped.profiles and config.lazy_profiles else None,
        )

    async def _has_to_begin(
        self, draft: ResponseDraft, room: Room, place: Membership, config: RoomConfig, since: int
    ) -> bool:
        """Whether the client has to replace what it has of a room."""
        is_joined = place.membership == "join"
        if is_joined and since < room.full_state_at and config.wants_all_members:
            return True
        return place.position > since and not await was_joined(
            self._rooms, room, draft.reader.user_id, place.event, since
        )

    async def _add_extensions(
        self, draft: ResponseDraft, reading: RoomReading, scoped: ScopedRoom
    ) -> None:
        """Add what the extensions have of a room that the user is in."""
        room, state, sent = reading.room, draft.state, reading.sent
        update, nid = draft.extensions, reading.room.room_nid
        is_fresh = reading.since is None
        extensions = self._extensions
        if scoped.receipts:
            since = None if is_fresh else state.since(nid, sent.receipts)
            if since is None or extensions.may_have_receipts(nid, since):
                shown = _event_ids(draft.results.get(room.room_id))
                await extensions.add_receipts(update, draft.reader, room, since, shown)
        if scoped.typing:
            since = None if is_fresh else state.since(nid, sent.typing)
            if since is None or extensions.may_have_typing(nid, since):
                await extensions.add_typing(update, draft.reader, room, since)
        if scoped.profiles:
            await self._profiles.add_room(draft, reading, scoped)
        if scoped.account_data:
            is_first = is_fresh or sent.account_data != LIVE
            if is_first or update.account_data:
                await extensions.add_room_data(
                    update, draft.reader, room.room_id, is_first=is_first
                )

    async def _add_device_data(self, draft: ResponseDraft) -> None:
        wanted, reader = draft.request.body.extensions, draft.reader
        if wanted.to_device is not None:
            await self._extensions.add_messages(
                draft.extensions, reader, wanted.to_device, draft.span
            )
        if wanted.threads is not None:
            await self._extensions.add_threads(
                draft.extensions, reader, draft.state, draft.span, wanted.threads
            )
        if wanted.sticky is not None:
            await self._sticky.add(
                draft.extensions, reader, wanted.sticky, draft.span.now, draft.results
            )
        if wanted.e2ee:
            await self._extensions.add_e2ee(
                draft.extensions, reader, draft.state, draft.span, draft.changed, draft.places
            )


def _may_have_new_data(draft: ResponseDraft) -> bool:
    """Whether the user may have account data that the client does not have."""
    changed, state = draft.changed, draft.state
    return changed is None or USER_DATA in changed or state.account_data is not state.token


def _entered(before: ListedScope, after: ListedScope) -> Collection[int]:
    """The rooms of a scope that were not, or not in the same way, in another one."""
    if before is after:
        return ()
    known = before.rooms
    return [nid for nid, scoped in after.rooms.items() if known.get(nid) != scoped]


def _event_ids(result: RoomResult | None) -> Collection[str]:
    """The ids of the events in the timeline of a result."""
    return () if result is None else result.event_ids
