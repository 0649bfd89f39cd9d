"""Timelines: the events of a room that one user has not seen, and whether events are left out.

In the common case, a few new events in a room that the user was in all along, the slice comes from
memory and is the same for all members: it is cut and encoded once for each pair of positions, and
every further request gets the same bytes.
"""

from collections.abc import Hashable, Sequence

import msgspec

from homeserver.accounts.sessions.requester import DELAYED_SCOPE
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.event_kinds import is_member_event, is_plain_redaction
from homeserver.protocol.sliding_sync.response import RoomResult
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.visibility import Visibility, VisibleEvent
from homeserver.rooms.room.changes import Changes
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import events as storage
from homeserver.storage.rooms.graph_edges import newest_timeline_gap
from homeserver.streams.tokens import stream_token
from homeserver.sync.rendering import render_events
from homeserver.sync.sync_request import SyncRequest

BATCH_SIZE = (
    100  # events that are examined together where a filter or visibility leaves few of them
)
MAX_EXAMINED_EVENTS = 1_000
CACHE_TTL_MS = 1_000  # how long an encoded slice may be sent: `age` is written into it
MAX_CACHED_SLICES = 2_000  # encoded slices


class TimelineSlice(msgspec.Struct, frozen=True):
    """Part of a room's timeline for one user, oldest event first.

    `limited` says that there are more events between the client's token and the first of these, or
    may be, on other servers; `skipped` that the slice leaves out events which the user may not see,
    or does not want. `prev_batch` is the position up to which all earlier events are.
    """

    seen: Sequence[VisibleEvent]
    limited: bool
    prev_batch: int
    skipped: bool = False

    @property
    def events(self) -> list[StoredEvent]:
        """The events without the fields that are this user's own."""
        return [event.stored for event in self.seen]


class SharedTimelineSlice(msgspec.Struct, frozen=True):
    """A slice that all members of the room see alike, with the JSON of its `timeline`.

    `changed` is the state that became current between its ends, `None` where memory does not reach
    back, and `state_after` its JSON. `sections` caches the room sections that have nothing else in
    them, by the name of their state, if any, and the unread counts of the main timeline:
    notifications and highlights; `results` the same of sliding sync, by what else is in them.
    `rendered` is the JSON list of the events. `changes_state` says whether anything in the state
    changed, or may have; `redacts` whether an event removes the content of an earlier one.
    """

    events: Sequence[StoredEvent]
    timeline: bytes
    senders: frozenset[str]
    members_changed: bool
    transactions: frozenset[tuple[str, str]]  # (user id, device id)
    rendered_ms: int
    changed: Sequence[StoredEvent] | None
    state_after: bytes
    rendered: bytes
    changes_state: bool
    redacts: bool
    sections: dict[tuple[str | None, int, int], bytes] = msgspec.field(default_factory=dict)
    results: dict[Hashable, RoomResult] = msgspec.field(default_factory=dict)

    def is_alike_for(self, request: SyncRequest) -> bool:
        """Whether the reader sees no transaction ids of their own, and ignores no sender."""
        return (
            request.device not in self.transactions
            and (request.user_id, DELAYED_SCOPE) not in self.transactions
            and request.ignored.isdisjoint(self.senders)
        )


class Timelines:
    """Cuts timelines."""

    def __init__(
        self, db: Database, rooms: RoomRegistry, visibility: Visibility, local_server: LocalServer
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._visibility = visibility
        self._local_server = local_server
        self._shared: LruCache[tuple[int, int, int], SharedTimelineSlice] = LruCache(
            "timeline_slices", MAX_CACHED_SLICES
        )

    def shared(self, room: Room, since: int, now: int, limit: int) -> SharedTimelineSlice | None:
        """The events between two positions as all members see them, if they are in memory.

        `None` where they are not, where there are more than `limit`, where events are missing, or
        where the graph forked, so that some members may not have been in the room on one branch.
        The caller ensures that the user was a member all the time.
        """
        if since < max(room.forked_at, room.timeline_gaps.last):
            return None
        key = (room.room_nid, since, now)
        shared = self._shared.peek(key)
        now_ms = self._local_server.now_ms()
        if shared is not None and now_ms - shared.rendered_ms < CACHE_TTL_MS:
            self._shared.hits += 1
            return shared if len(shared.events) <= limit else None
        self._shared.misses += 1
        events = room.events_after(since)
        if events is None:
            return None
        if room.last_position > now:
            events = [stored for stored in events if (stored.position or 0) <= now]
        if len(events) > limit or self._visibility.may_have_expired(room, events):
            return None
        return self._shared.put(key, _share(events, room.changes_after(since, now), now_ms))

    async def cut(self, room: Room, request: SyncRequest, since: int, now: int) -> TimelineSlice:
        """The newest events above `since` that the user may see and wants.

        `since` is 0 for a client that knows nothing of the room. Where events are missing the slice
        begins after the newest gap: events before and after a gap are not adjacent.
        """
        wanted: list[VisibleEvent] = []
        upto, looked_at, skipped, exhausted = now, 0, False, False
        limit = request.timeline_limit
        if limit == 0:
            return TimelineSlice([], room.last_position > since, now)
        if not request.filter.room.timeline.matches_room(room.room_id):
            return TimelineSlice([], False, now, skipped=True)
        begin = max(since, await self._newest_gap(room, now) - 1)
        size = limit + 1 if request.is_plain else BATCH_SIZE
        while len(wanted) <= limit and looked_at < MAX_EXAMINED_EVENTS and not exhausted:
            chunk = await self.events_between(room, begin, upto, size)
            exhausted = len(chunk) < size
            if not chunk:
                break
            looked_at += len(chunk)
            seen = await self._visibility.visible(room, request.user_id, chunk)
            if len(seen) < len(chunk) and room.membership(request.user_id) == "join":
                seen = _with_current_state(room, chunk, seen)
            passed = self._passing(request, seen)
            skipped = skipped or len(passed) < len(chunk)
            wanted[:0] = passed
            upto = (chunk[0].position or 1) - 1
        limited = len(wanted) > limit or not exhausted or begin > since
        wanted = wanted[-limit:]
        prev_batch = begin if exhausted else upto
        if wanted:
            prev_batch = (wanted[0].stored.position or 1) - 1
        return TimelineSlice(wanted, limited, prev_batch, skipped)

    def with_own(
        self, timeline: TimelineSlice, request: SyncRequest, own: VisibleEvent
    ) -> TimelineSlice:
        """A timeline that ends with the user's own member event, if they want such events.

        The room's history visibility may hide the event from a user who was not in the room, but
        the user must learn what became of their invite, their knock or their membership.
        """
        is_there = any(event.stored.event_nid == own.stored.event_nid for event in timeline.seen)
        if is_there or not self._is_wanted(request, own.stored) or not request.timeline_limit:
            return timeline
        seen = [*timeline.seen, own]
        kept = seen[-request.timeline_limit :]
        limited = timeline.limited or len(kept) < len(seen)
        prev_batch = timeline.prev_batch
        if len(kept) < len(seen):
            prev_batch = (kept[0].stored.position or 1) - 1
        return TimelineSlice(kept, limited, prev_batch, timeline.skipped)

    async def _newest_gap(self, room: Room, upto: int) -> int:
        """The position of the newest event, up to `upto`, with a gap before it; 0 for none."""
        newest = room.timeline_gaps.newest(upto)
        if newest is None:
            newest = await self._db.run(newest_timeline_gap, room.room_nid, upto)
        return newest

    async def events_between(
        self, room: Room, since: int, upto: int, limit: int
    ) -> list[StoredEvent]:
        """The newest `limit` events with since < position <= upto, oldest first, unfiltered."""
        events = room.newest_events(since, upto, limit)
        if events is not None:
            return events
        rows = await self._db.run(storage.events_between, room.room_nid, since, upto, limit)
        numbers = [event for _, event in reversed(rows)]
        return await self._rooms.load_events_in_order(room, numbers)

    def _passing(
        self, request: SyncRequest, seen: Sequence[VisibleEvent]
    ) -> Sequence[VisibleEvent]:
        """Those of the events that a request wants."""
        if request.is_plain and not request.ignored:
            return seen
        return [event for event in seen if self._is_wanted(request, event.stored)]

    def _is_wanted(self, request: SyncRequest, stored: StoredEvent) -> bool:
        event = stored.event
        if event.sender in request.ignored and event.state_key is None:
            return False
        wanted = request.filter.room.timeline
        return wanted.matches(event.type, event.sender, event.content)


def timeline_json(events: bytes, limited: bool, prev_batch: int) -> bytes:
    """The `timeline` of a room section; `prev_batch` is the position to page back from."""
    return b'{"events":%s,"limited":%s,"prev_batch":"%s"}' % (
        events,
        b"true" if limited else b"false",
        stream_token(prev_batch).encode(),
    )


def _with_current_state(
    room: Room, events: Sequence[StoredEvent], seen: Sequence[VisibleEvent]
) -> list[VisibleEvent]:
    """The visible events, and those of the others that are the room's current state.

    Members get the current state in any case, and clients look for it in the timeline first.
    """
    by_number = {event.stored.event_nid: event for event in seen}
    return [
        by_number.get(stored.event_nid) or VisibleEvent(stored, "leave")
        for stored in events
        if stored.event_nid in by_number or _is_current(room, stored)
    ]


def _is_current(room: Room, stored: StoredEvent) -> bool:
    event = stored.event
    return (
        event.state_key is not None
        and room.number_of((event.type, event.state_key)) == stored.event_nid
    )


def _share(
    events: Sequence[StoredEvent], changes: Changes | None, now_ms: int
) -> SharedTimelineSlice:
    changed = None if changes is None else [each for each in changes.values() if each is not None]
    first = events[0] if events else None
    prev_batch = 0 if first is None else (first.position or 1) - 1
    rendered = render_events([VisibleEvent(stored, "join") for stored in events], now_ms)
    return SharedTimelineSlice(
        events,
        timeline_json(rendered, False, prev_batch),
        frozenset(stored.event.sender for stored in events),
        any(is_member_event(stored.event) for stored in events),
        frozenset(stored.transaction[:2] for stored in events if stored.transaction is not None),
        now_ms,
        changed,
        b'{"events":[%s]}'
        % b",".join(stored.client_json(now_ms, room_id=False) for stored in changed or ()),
        rendered,
        changes is None or bool(changes),
        any(is_plain_redaction(stored.event) for stored in events),
    )
