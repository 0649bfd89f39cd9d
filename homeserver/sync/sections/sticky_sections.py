"""The sticky events of rooms that an update has beside timelines.

A member gets each of them once, in a timeline or here, wherever the timeline begins and whatever
its filter leaves out. Who joins a room gets all that stick there. If there are more than fit into a
response, those that began to stick last are for the next one, and the token says so; an event that
was in a timeline may come again then.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4354
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet

from homeserver.protocol.proposals.sticky_events import STICKY_NAMES
from homeserver.rooms.events.stored_event import ACCEPTED, StoredEvent
from homeserver.rooms.history.visibility import Visibility
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import MemberRooms
from homeserver.rooms.sticky.room_sticky_events import StickyEvent
from homeserver.rooms.sticky.sticky_events import StickyEvents
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.rendering import render_state
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.sync_span import SyncSpan
from homeserver.sync.update import NO_EVENTS, join_events

MAX_EVENTS = 1_000  # of a response, beside all of the rooms that the user has just joined
MAX_BYTES = 4_194_304
_NO_ROOMS: frozenset[int] = frozenset()


class StickySections:
    """Finds sticky events for updates, and renders them."""

    def __init__(self, events: StickyEvents, rooms: RoomRegistry, visibility: Visibility) -> None:
        self._events = events
        self._rooms = rooms
        self._visibility = visibility

    @property
    def rooms(self) -> AbstractSet[int]:
        """The rooms in which events may stick."""
        return self._events.rooms

    def waiting(self, since: SyncToken | None) -> AbstractSet[int]:
        """The rooms with events for which there was no place in the response before a token."""
        return _NO_ROOMS if since is None or since.sticky is None else self._events.rooms

    def changed_rooms(self, rooms: MemberRooms, since: SyncToken) -> list[int]:
        """Those of a user's rooms in which events stick that a client lacks."""
        return self._events.changed_rooms(rooms, since)

    def last_position(self, room_nid: int) -> int:
        """The position up to which events began to stick in a room."""
        return max((each.position for each in self._events.above(room_nid, 0)), default=0)

    def limit(self, span: SyncSpan, room_nids: Collection[int], most: int | None = None) -> None:
        """Bound the events that an update of some rooms may have."""
        if not self._events.rooms:
            return
        most = MAX_EVENTS if most is None else most
        found: list[StickyEvent] = []
        for room_nid in self._events.rooms & set(room_nids):
            found += self.of_room(span, room_nid, is_new=False)
        if len(found) <= most and sum(each.size for each in found) <= MAX_BYTES:
            return
        found.sort(key=lambda each: each.position)
        size = 0
        for number, event in enumerate(found):
            size += event.size
            if number and (number == most or size > MAX_BYTES):
                span.leave_sticky_above(found[number - 1].position)
                return

    def of_room(self, span: SyncSpan, room_nid: int, *, is_new: bool) -> Sequence[StickyEvent]:
        """The events of a room that an update may have; all, if the room is new to the client."""
        if room_nid not in self._events.rooms:
            return ()
        since = 0 if is_new or span.since is None else span.since.of_sticky(room_nid)
        upto = span.sticky_upto(room_nid)
        return [each for each in self._events.above(room_nid, since) if each.position <= upto]

    async def add(
        self,
        parts: dict[str, bytes],
        room: Room,
        request: SyncRequest,
        events: Sequence[StickyEvent],
        shown: Sequence[StoredEvent],
        members: Callable[[Iterable[str]], Awaitable[Sequence[StoredEvent]]],
    ) -> None:
        """Add what the timeline does not show to a room section.

        With lazy loading, `members` gives the member events of the senders that the device does not
        have: a client shows nobody in a call whom it does not know to be in the room.
        """
        stored = await self.wanted(room, request, events, shown)
        if not stored:
            return
        local_server = self._rooms.local_server
        section = b'{"events":%s}' % await render_state(request, stored, local_server)
        # Clients of today know only the name of the proposal.
        parts |= dict.fromkeys(STICKY_NAMES, section)
        if not request.lazy:
            return
        senders = {each.event.sender for each in stored}
        senders.difference_update(each.event.sender for each in shown)
        before = parts.get(request.state_name, NO_EVENTS)
        # Those whose names stand for the room's may be there already.
        state = [
            each for each in await members(senders) if each.event.event_id.encode() not in before
        ]
        if state:
            added = b'{"events":%s}' % await render_state(request, state, local_server)
            parts[request.state_name] = join_events(before, added)

    async def wanted(
        self,
        room: Room,
        request: SyncRequest,
        events: Iterable[StickyEvent],
        shown: Iterable[StoredEvent],
    ) -> list[StoredEvent]:
        """Those of the events that stick, that the user wants and that the timeline lacks."""
        in_timeline = {stored.event_nid for stored in shown}
        event_nids = [each.event_nid for each in events if each.event_nid not in in_timeline]
        if not event_nids:
            return []
        found = await self._rooms.load_events_in_order(room, event_nids)
        now_ms = self._rooms.local_server.now_ms()
        return [
            stored
            for stored in await self._visibility.kept(room, found)
            if stored.status == ACCEPTED
            and (stored.sticky_until or 0) > now_ms
            and (stored.event.state_key is not None or stored.event.sender not in request.ignored)
        ]
