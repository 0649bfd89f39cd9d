"""What a search returns beside the results: the events around them, profiles, the state of rooms.

Nothing is fetched from other servers for it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search
"""

from collections.abc import Mapping, Sequence

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Forbidden
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.aggregations import BundledAggregations
from homeserver.rooms.history.history import Context, History, PageRequest
from homeserver.rooms.history.room_reader import ReadAccess, RoomReader
from homeserver.rooms.history.timeline_segments import Depths
from homeserver.rooms.history.visibility import VisibleEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.search.found_events import FoundEvent

DEFAULT_AROUND = 5
MAX_AROUND = 20  # events before a result, and as many after it
MAX_MEMBERS = 1_000  # in the state of a room; if it has more, those who sent results
MAX_STATE = 20_000  # state events of all rooms of a response


class ContextRequest(msgspec.Struct, frozen=True):
    """How much of the context of each result is wanted."""

    before_limit: int = DEFAULT_AROUND
    after_limit: int = DEFAULT_AROUND
    include_profile: bool = False


class ResultContext(msgspec.Struct, frozen=True):
    """The context of a result, and the profiles of all senders in it, at that time."""

    around: Context
    profiles: Mapping[str, Mapping[str, object]]


class NoBackfill:
    """A search shows what this server has."""

    async def fill(self, room: Room, depths: Depths, limit: int) -> bool:
        """Fetch nothing."""
        return False


class ResultContexts:
    """Reads the surroundings of results."""

    def __init__(
        self,
        rooms: RoomRegistry,
        reader: RoomReader,
        history: History,
        relations: BundledAggregations,
    ) -> None:
        self._rooms = rooms
        self._reader = reader
        self._history = history
        self._relations = relations

    async def of(
        self,
        caller: Requester,
        ignored: frozenset[str],
        result: FoundEvent,
        request: ContextRequest,
    ) -> ResultContext:
        """The context of a result, as its user sees it."""
        around = await self._history.around(
            result.access,
            result.seen,
            min(request.before_limit, MAX_AROUND),
            min(request.after_limit, MAX_AROUND),
            PageRequest(backwards=False, ignored=ignored),
        )
        others = await self._relations.bundled(caller, ignored, [*around.before, *around.after])
        size = len(around.before)
        around = Context(
            around.event, others[:size], others[size:], around.start, around.end, around.state
        )
        profiles = await self._profiles(result, others) if request.include_profile else {}
        return ResultContext(around, profiles)

    async def states(
        self, user_id: str, results: Sequence[FoundEvent]
    ) -> dict[str, list[StoredEvent]]:
        """The state of each room with results, up to `MAX_STATE` events in all."""
        accesses = {result.stored.event.room_id: result.access for result in results}
        senders = {result.stored.event.sender for result in results}
        states: dict[str, list[StoredEvent]] = {}
        left = MAX_STATE
        for room_id, access in accesses.items():
            state = await self._state(access, senders | {user_id})
            if state is None or len(state) > left:
                continue
            left -= len(state)
            states[room_id] = state
        return states

    async def _state(self, access: ReadAccess, users: set[str]) -> list[StoredEvent] | None:
        room = access.room
        if not access.is_current:
            try:
                return await self._reader.state(access.user_id, room.room_id)
            except Forbidden:  # the user has forgotten the room meanwhile
                return None
        members = room.member_events
        if room.partial is not None or len(members) > MAX_MEMBERS:
            wanted = [members[user] for user in sorted(users) if user in members]
        else:
            wanted = list(members.values())
        return await self._rooms.load_many_events(room, [*room.state.values(), *wanted])

    async def _profiles(
        self, result: FoundEvent, others: Sequence[VisibleEvent]
    ) -> dict[str, dict[str, object]]:
        events = [result.stored, *(each.stored for each in others)]
        newest = max(events, key=lambda stored: stored.visible_since)
        senders = dict.fromkeys(stored.event.sender for stored in events)
        members = await self._reader.member_events(result.access.room, newest.state_after, senders)
        return {
            member.event.state_key or "": {
                name: member.shown.content[name]
                for name in ("displayname", "avatar_url")
                if isinstance(member.shown.content.get(name), str)
            }
            for member in members
        }
