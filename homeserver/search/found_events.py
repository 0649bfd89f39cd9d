"""Checks what the search index names: is it still so, and may the user see it?

The index is only a hint. An event counts if the user may see it now, and if what they see of it is
found by the term: so a redacted event is not found from the moment of its redaction, and a message
of an erased user only by those who were there. An event that was edited is not found by its former
text: its latest edit is found by the new one.
"""

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.protocol.errors import Forbidden
from homeserver.protocol.relations import REPLACE, relation_of
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.search.searchable import searchable_text
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.aggregations import BundledAggregations
from homeserver.rooms.history.room_reader import ReadAccess, RoomReader
from homeserver.rooms.history.visibility import Visibility, VisibleEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.search.index_search import SearchEntry
from homeserver.search.search_request import SearchRequest


class FoundEvent(msgspec.Struct, frozen=True):
    """A result: what the user sees of the event, its text, and its entry of the index."""

    entry: SearchEntry
    seen: VisibleEvent
    access: ReadAccess
    text: str

    @property
    def stored(self) -> StoredEvent:
        return self.seen.stored


class FoundEvents:
    """Finds out which entries of the index a user may see."""

    def __init__(
        self,
        rooms: RoomRegistry,
        reader: RoomReader,
        visibility: Visibility,
        relations: BundledAggregations,
    ) -> None:
        self._rooms = rooms
        self._reader = reader
        self._visibility = visibility
        self._relations = relations

    async def visible(
        self,
        caller: Requester,
        ignored: frozenset[str],
        request: SearchRequest,
        entries: Sequence[SearchEntry],
    ) -> list[FoundEvent]:
        """Those of the entries that are results for the caller, in the same order."""
        by_room: dict[int, list[SearchEntry]] = defaultdict(list)
        for entry in entries:
            by_room[entry.room].append(entry)
        accesses = await self._accesses(caller.user_id, list(by_room))
        stored = await self._load(caller.user_id, accesses, by_room)
        found: dict[int, FoundEvent] = {}
        for access in accesses:
            of_room = by_room[access.room.room_nid]
            seen = await self._seen(access, [stored[e.event] for e in of_room if e.event in stored])
            wanted = await self._wanted(request, ignored, seen)
            bundled = await self._relations.bundled(caller, ignored, wanted)
            replaced = await self._replaced(caller, ignored, access.room, bundled)
            places = {entry.event: entry for entry in of_room}
            for each in bundled:
                text = _text_of(each.stored)
                number = each.stored.event_nid
                if number not in replaced and text is not None:
                    found[number] = FoundEvent(places[number], each, access, text)
        return [found[entry.event] for entry in entries if entry.event in found]

    async def _accesses(self, user_id: str, room_nids: Sequence[int]) -> list[ReadAccess]:
        accesses = []
        for room_nid in room_nids:
            room = await self._rooms.by_number(room_nid)
            if room is not None:
                try:
                    accesses.append(await self._reader.access(user_id, room.room_id))
                except Forbidden:
                    continue
        return accesses

    async def _load(
        self,
        user_id: str,
        accesses: Sequence[ReadAccess],
        by_room: dict[int, list[SearchEntry]],
    ) -> dict[int, StoredEvent]:
        """The events of the entries, read together for all rooms of a version.

        With them the user's member events, by which their visibility is decided.
        """
        rooms: dict[RoomVersion, Room] = {}
        wanted: dict[RoomVersion, list[int]] = defaultdict(list)
        for room in (access.room for access in accesses):
            rooms[room.version] = room
            wanted[room.version] += [entry.event for entry in by_room[room.room_nid]]
            if user_id in room.member_events:
                wanted[room.version].append(room.member_events[user_id])
        found: dict[int, StoredEvent] = {}
        for version, event_nids in wanted.items():
            found |= await self._rooms.load_events(rooms[version], event_nids)
        return found

    async def _seen(self, access: ReadAccess, events: Sequence[StoredEvent]) -> list[VisibleEvent]:
        reachable = [
            stored for stored in events if stored.position is not None and access.includes(stored)
        ]
        return await self._visibility.visible(access.room, access.user_id, reachable)

    async def _wanted(
        self, request: SearchRequest, ignored: frozenset[str], seen: Sequence[VisibleEvent]
    ) -> list[VisibleEvent]:
        """Those of the events that pass the filter, and that the term finds."""
        time_slice = TimeSlice(self._rooms.local_server.clock)
        wanted = []
        for each in seen:
            if time_slice.is_over:
                await time_slice.next()
            if _is_wanted(request, ignored, each):
                wanted.append(each)
        return wanted

    async def _replaced(
        self,
        caller: Requester,
        ignored: frozenset[str],
        room: Room,
        events: Sequence[VisibleEvent],
    ) -> set[int]:
        """The events that are no results, since a later edit is, or that are no valid edits."""
        replaced = {each.stored.event_nid for each in events if _latest_edit(each) is not None}
        edits = {
            each.stored.event_nid: (relation.parent_id, each.stored.event.event_id)
            for each in events
            if (relation := relation_of(each.stored.event)) is not None
            and relation.rel_type == REPLACE
        }
        if not edits:
            return replaced
        parents = await self._rooms.find_events(room, {parent for parent, _ in edits.values()})
        seen = [VisibleEvent(stored, "join") for stored in parents.values()]
        latest = {
            each.stored.event.event_id: _latest_edit(each)
            for each in await self._relations.bundled(caller, ignored, seen)
        }
        return replaced | {
            number
            for number, (parent, event_id) in edits.items()
            if parent in latest and latest[parent] != event_id
        }


def _is_wanted(request: SearchRequest, ignored: frozenset[str], seen: VisibleEvent) -> bool:
    event = seen.stored.shown
    if event.sender in ignored and event.state_key is None:
        return False
    if not request.event_filter.matches(event.type, event.sender, event.content):
        return False
    text = searchable_text(event.type, event.state_key, event.content)
    return text is not None and text.key in request.keys and request.term.matches(text.text)


def _text_of(stored: StoredEvent) -> str | None:
    event = stored.shown
    text = searchable_text(event.type, event.state_key, event.content)
    return None if text is None else text.text


def _latest_edit(seen: VisibleEvent) -> str | None:
    """The id of the latest edit of an event, if it has one."""
    if seen.relations is None:
        return None
    edit = msgspec.json.decode(seen.relations).get(REPLACE)
    return None if edit is None else edit["event_id"]
