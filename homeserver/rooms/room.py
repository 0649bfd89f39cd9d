"""A room as its readers see it: current state, members and newest events, up to the log's position.

Only the facts of the log change it (`Rooms.apply`), so everything that it shows is durable. What
the room's writer has queued, but the log has not yet published, is known to the writer alone.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.stored_event import StoredEvent

StateKey = tuple[str, str]

TIMELINE_LENGTH = 120  # newest events of each room that are kept at hand


@dataclass(frozen=True, slots=True)
class RoomEventAppended:
    """An event entered the timeline of a room. `redacts` is the event that it redacted."""

    position: int
    room: int
    stored: StoredEvent
    redacts: StoredEvent | None = None
    version: RoomVersion | None = None  # with the first event of a room that was made here


class Room:
    """What readers know of one room.

    `state` maps (type, state key) to event numbers but for member events, which `member_events` has
    by user id; `members` maps user ids to memberships. `timeline` holds the newest events, all
    those with `timeline_from < position`, oldest first.
    """

    def __init__(self, number: int, room_id: str, version: RoomVersion, root: bytes) -> None:
        self.number = number
        self.room_id = room_id
        self.version = version
        self.root = root
        self.published = False
        self.state: dict[StateKey, int] = {}
        self.member_events: dict[str, int] = {}
        self.members: dict[str, str] = {}
        self.timeline: deque[StoredEvent] = deque()
        self.timeline_from = 0
        self.last_position = 0
        self.joined_count = 0
        self.invited_count = 0
        self.heroes: list[str] | None = None  # remembered by `homeserver/sync/summary.py`

    def number_of(self, key: StateKey) -> int | None:
        """Number of the current event of a type and state key."""
        if key[0] == "m.room.member":
            return self.member_events.get(key[1])
        return self.state.get(key)

    def set_state(self, key: StateKey, number: int, membership: object) -> None:
        """Make an event the current one of its key; `membership` is that of a member event."""
        event_type, user_id = key
        if event_type != "m.room.member":
            self.state[key] = number
            return
        self.member_events[user_id] = number
        before = self.members.get(user_id)
        after = membership if isinstance(membership, str) else "leave"
        self.members[user_id] = after
        if before != after:
            self.joined_count += (after == "join") - (before == "join")
            self.invited_count += (after == "invite") - (before == "invite")
            self.heroes = None

    @property
    def size(self) -> int:
        """Entries of the state, which is what a room takes most memory for."""
        return len(self.state) + len(self.member_events)

    def apply(self, stored: StoredEvent) -> None:
        """Show an event that has just become durable, and the state that it brings."""
        assert stored.position is not None
        self.timeline.append(stored)
        if len(self.timeline) > TIMELINE_LENGTH:
            oldest = self.timeline.popleft()
            assert oldest.position is not None
            self.timeline_from = oldest.position
        event = stored.event
        if event.state_key is not None:
            self.set_state(
                (event.type, event.state_key), stored.number, event.content.get("membership")
            )
        self.root = stored.state_after
        self.last_position = stored.position

    def events_after(self, position: int) -> list[StoredEvent] | None:
        """Timeline events above a position, oldest first; `None` where memory starts later."""
        if position < self.timeline_from:
            return None
        events: list[StoredEvent] = []
        for stored in reversed(self.timeline):
            assert stored.position is not None
            if stored.position <= position:
                break
            events.append(stored)
        events.reverse()
        return events

    def joined_members(self) -> Iterator[str]:
        """User ids of all that are joined."""
        return (user_id for user_id, membership in self.members.items() if membership == "join")

    def membership(self, user_id: str) -> str | None:
        """The user's present membership; `None` for one who was never here."""
        return self.members.get(user_id)
