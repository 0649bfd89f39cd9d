"""A room as its readers see it: current state, members and newest events, up to the log's position.

Only entries of the log change it (`RoomRegistry.apply`), so everything that it shows is durable.
Only the room's writer knows what it has queued and the log has not yet published.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from itertools import pairwise, takewhile

import msgspec

from homeserver.concurrency.clock import Clock
from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import (
    DirectoryVisibilityChanged,
    EventAppended,
    EventsPurged,
    EventsStored,
    HistoryImported,
    PartialRoomJoined,
    PartialRoomLeft,
    PartialRoomReplaced,
    RoomChange,
    RoomUnPartialStated,
    StateChanged,
    StateKey,
    membership_of,
)
from homeserver.rooms.room.partial_state import PartialState
from homeserver.rooms.room.timeline_gaps import TimelineGaps

__all__ = ["SHORT_TIMELINE", "TIMELINE_LENGTH", "EventAppended", "Room", "StateKey"]

TIMELINE_LENGTH = 120  # newest events of each room that are kept in memory, at most
SHORT_TIMELINE = 12  # of them, that a room keeps in any case: a first page of the default limit
ROOM_BYTES = 6_000  # of a room and its writer, without its state and its timeline
STATE_ENTRY_BYTES = 250
MAX_UNDOABLE_CHANGES = 5_000  # state entries whose earlier values are kept


class StateChange(msgspec.Struct, frozen=True):
    """A change of the current state at a position: the event nid before it, and the event after it.

    Rooms have many of these, mostly of one key: tuples take a quarter of the memory of mappings.
    """

    position: int
    entries: tuple[tuple[StateKey, int | None, StoredEvent | None], ...]


class Room:
    """The published state of one room.

    `state` maps (type, state key) to event nids except for member events, which `member_events` has
    by user id; `members` maps user ids to memberships. `timeline` holds the newest events, all
    those with `timeline_from < position`, oldest first; `state_changes` the changes of the state
    with `changes_from < position`.

    Above `forked_at` the state after each event was the current state at that position; above
    `disordered_at` each event is also deeper in the graph than all before it, and nothing comes
    between them.
    `backward_extremities` are missing events that others follow, with the depth of what follows
    them: there, history can be backfilled. `timeline_gaps` are the positions in the timeline before
    which such events are missing. No membership has changed above `members_changed_at`.

    While `partial` is set most members are unknown; `full_state_at` is the position from which on
    they are known, in a room that had partial state. A room that was left before keeps it.
    """

    def __init__(self, number: int, room_id: str, version: RoomVersion, root: bytes) -> None:
        self.room_nid = number
        self.room_id = room_id
        self.version = version
        self.root = root
        self.published = False
        self.state: dict[StateKey, int] = {}
        self.member_events: dict[str, int] = {}
        self.members: dict[str, str] = {}
        self.timeline: list[StoredEvent] = []
        self.timeline_from = 0
        self.timeline_bytes = 0  # about the memory of these events
        self.state_changes: list[StateChange] = []
        self.changes_from = 0
        self.forked_at = 0
        self.disordered_at = 0
        self.backward_extremities: dict[str, int] = {}
        self.timeline_gaps = TimelineGaps()
        self.last_position = 0
        self.members_changed_at = 0
        self.joined_count = 0
        self.joined_servers: Counter[str] = Counter()  # members who are joined, by their server
        self.invited_count = 0
        self.heroes: list[str] | None = None  # cached by `homeserver/rooms/discovery/heroes.py`
        self.partial: PartialState | None = None
        self.full_state_at = 0
        self.was_left_partial = False
        self._undoable_entries = 0

    @property
    def servers(self) -> Collection[str]:
        """The servers in the room, as far as they are known."""
        if self.partial is None:
            return self.joined_servers.keys()
        return dict.fromkeys([*self.joined_servers, *self.partial.servers])

    async def wait_for_full_state(self, clock: Clock, *user_ids: str) -> None:
        """Wait until all members are known, or at least these users, if any are named.

        Raises `Unavailable` if that takes too long.
        """
        if self.partial is None or (user_ids and self.members.keys() >= {*user_ids}):
            return
        await self.partial.wait_for_full_state(clock)

    def number_of(self, key: StateKey) -> int | None:
        """The nid of the current event of a type and state key."""
        if key[0] == MEMBER:
            return self.member_events.get(key[1])
        return self.state.get(key)

    def set_state(self, key: StateKey, number: int | None, membership: str) -> None:
        """Set the current event of a key, or none; `membership` is that of a member event."""
        event_type, user_id = key
        if event_type != MEMBER:
            if number is None:
                self.state.pop(key, None)
            else:
                self.state[key] = number
            return
        before = self.members.get(user_id)
        if number is None:
            self.member_events.pop(user_id, None)
            self.members.pop(user_id, None)
        else:
            self.member_events[user_id] = number
            self.members[user_id] = membership
        if before != membership:
            joined = (membership == "join") - (before == "join")
            if joined:
                self._count_member(user_id, joined)
            self.invited_count += (membership == "invite") - (before == "invite")
            self.heroes = None

    def _count_member(self, user_id: str, change: int) -> None:
        self.joined_count += change
        server = user_id.partition(":")[2]
        self.joined_servers[server] += change
        if not self.joined_servers[server]:
            del self.joined_servers[server]

    @property
    def memory(self) -> int:
        """About the bytes that the room takes."""
        entries = len(self.state) + len(self.member_events)
        return ROOM_BYTES + STATE_ENTRY_BYTES * entries + self.timeline_bytes

    def apply(self, entry: StateChanged) -> None:
        """Show a change that has just become durable: an event, and the changes of the state."""
        if entry.backward_extremities:
            self.backward_extremities |= entry.backward_extremities
        if isinstance(entry, EventAppended):
            if not entry.is_last:
                self.disordered_at = entry.position
            if entry.is_after_gap:
                self.timeline_gaps.add(entry.position)
            self.timeline.append(entry.stored)
            self.timeline_bytes += entry.stored.memory
            self.shorten_timeline(TIMELINE_LENGTH)
        if entry.changes:
            self._remember(
                StateChange(
                    entry.position,
                    tuple(
                        (key, self.number_of(key), stored) for key, stored in entry.changes.items()
                    ),
                )
            )
            for key, stored in entry.changes.items():
                if key[0] == MEMBER:
                    self.members_changed_at = entry.position
                number = None if stored is None else stored.event_nid
                self.set_state(key, number, membership_of(stored))
        if entry.is_fork:
            self.forked_at = entry.position
        self.root = entry.root
        self.last_position = entry.position
        if isinstance(entry, RoomUnPartialStated):
            self._remove_from_timeline(entry.removed)
            # The earlier states were changed too; they are read from their trees.
            self.state_changes.clear()
            self.changes_from, self._undoable_entries = entry.position, 0
            self.full_state_at = entry.position
            self._set_partial(None)

    def follow(self, entry: RoomChange) -> None:
        """Show a change that has just become durable, and does not change the current state."""
        if isinstance(entry, EventsStored):
            self._fill(entry)
        elif isinstance(entry, EventsPurged):
            self._remove_from_timeline(entry.event_nids if entry.from_timeline else ())
        elif isinstance(entry, HistoryImported):
            if entry.before is not None:
                self.timeline_gaps.add(entry.before)
                self.disordered_at = max(self.disordered_at, entry.before)
        elif isinstance(entry, DirectoryVisibilityChanged):
            self.published = entry.published
        elif isinstance(entry, PartialRoomLeft):
            # Unless the room has been joined again since.
            if self.partial is not None and self.partial.join_id == entry.join_id:
                self._set_partial(None, was_left=True)
        elif isinstance(entry, PartialRoomJoined):
            self._set_partial(PartialState(entry.join_id, entry.servers))
        elif isinstance(entry, PartialRoomReplaced):
            self._set_partial(None)

    def _set_partial(self, partial: PartialState | None, *, was_left: bool = False) -> None:
        """Replace the partial state, and resume the requests that wait for its members."""
        former, self.partial = self.partial, partial
        self.was_left_partial = was_left
        if former is not None:
            former.finish()

    def shorten_timeline(self, length: int) -> None:
        """Keep at most the newest `length` events in memory."""
        excess = len(self.timeline) - length
        if excess > 0:
            oldest = self.timeline[:excess]
            del self.timeline[:excess]
            self.timeline_from = oldest[-1].position or 0
            self.timeline_bytes -= sum(stored.memory for stored in oldest)
        self._forget_changes()

    def _remove_from_timeline(self, numbers: Collection[int]) -> None:
        self.timeline = [each for each in self.timeline if each.event_nid not in numbers]
        self._measure_timeline()

    def _measure_timeline(self) -> None:
        self.timeline_bytes = sum(stored.memory for stored in self.timeline)

    def _fill(self, entry: EventsStored) -> None:
        """Remove the backward extremities that backfilled events have filled."""
        self.backward_extremities |= entry.backward_extremities
        for stored in entry.events:
            if not stored.status.is_outlier:
                self.backward_extremities.pop(stored.event.event_id, None)

    def events_after(self, position: int) -> list[StoredEvent] | None:
        """Timeline events above a position, oldest first; `None` if memory starts later."""
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

    def newest_events(self, since: int, upto: int, limit: int) -> list[StoredEvent] | None:
        """The newest `limit` events with since < position <= upto, oldest first.

        `None` if memory starts later than they may.
        """
        events: list[StoredEvent] = []
        for stored in reversed(self.timeline):
            assert stored.position is not None
            if stored.position <= since or len(events) == limit:
                break
            if stored.position <= upto:
                events.append(stored)
        else:
            if since < self.timeline_from and len(events) < limit:
                return None
        events.reverse()
        return events

    def changes_after(
        self, position: int, upto: int, shown: Collection[int] = ()
    ) -> dict[StateKey, StoredEvent | None] | None:
        """The changes of the state above a position; `None` if memory starts later.

        Events with the nids `shown` are left out.
        """
        if position < self.changes_from:
            return None
        since = takewhile(lambda each: each.position > position, reversed(self.state_changes))
        changed: dict[StateKey, StoredEvent | None] = {}
        for change in reversed([each for each in since if each.position <= upto]):
            changed |= {
                key: stored
                for key, _, stored in change.entries
                if stored is None or stored.event_nid not in shown
            }
        return changed

    def undone(self, position: int) -> dict[StateKey, int | None] | None:
        """The entries that were different at a position, as they were; `None` as above."""
        if position < self.changes_from:
            return None
        before: dict[StateKey, int | None] = {}
        for change in reversed(self.state_changes):
            if change.position <= position:
                break
            before |= {key: number for key, number, _ in change.entries}
        return before

    def joined_members(self) -> Iterator[str]:
        """User ids of all joined members."""
        return (user_id for user_id, membership in self.members.items() if membership == "join")

    def membership(self, user_id: str) -> str | None:
        """The user's present membership; `None` for a user who was never in the room."""
        return self.members.get(user_id)

    def recall(self, timeline: list[StoredEvent], forked_at: int) -> None:
        """Set the newest events of a room that is being loaded, oldest first.

        Their changes of the state follow from them where nothing was resolved.
        """
        self.timeline.extend(timeline)
        self._measure_timeline()
        self.forked_at = forked_at
        self.changes_from = self.members_changed_at = max(self.timeline_from, forked_at)
        # Imported events are before a gap, though nothing in the graph shows them.
        self.disordered_at = self.timeline_gaps.last
        for earlier, later in pairwise(timeline):
            if later.event.prev_event_ids != [earlier.event.event_id]:
                self.disordered_at = max(self.disordered_at, later.position or 0)
        for stored in timeline:
            event, position = stored.event, stored.position or 0
            if event.state_key is not None and position > self.changes_from:
                key = (event.type, event.state_key)
                if key[0] == MEMBER:
                    self.members_changed_at = position
                self._remember(StateChange(position, ((key, stored.replaces, stored),)))

    def _remember(self, change: StateChange) -> None:
        self.state_changes.append(change)
        self._undoable_entries += len(change.entries)
        self._forget_changes()

    def _forget_changes(self) -> None:
        """Forget changes from before the timeline, and those beyond the bound."""
        forgotten = 0
        for oldest in self.state_changes:
            if (
                oldest.position > self.timeline_from
                and self._undoable_entries <= MAX_UNDOABLE_CHANGES
            ):
                break
            self.changes_from = max(self.changes_from, oldest.position)
            self._undoable_entries -= len(oldest.entries)
            forgotten += 1
        del self.state_changes[:forgotten]
