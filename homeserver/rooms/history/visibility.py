"""History visibility: the events that users and servers may see, by the state at each event.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility
"""

from collections.abc import Sequence
from typing import NamedTuple

from homeserver.accounts.status.erasure import ErasedUsers
from homeserver.protocol.errors import UnableDueToPartialState
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.event_types import HISTORY_VISIBILITY_KEY, MEMBER
from homeserver.protocol.events import Event
from homeserver.protocol.history_visibility import (
    is_of_server,
    may_see,
    may_see_event,
    may_server_see_event,
    visibility_of,
)
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.imported_events import is_imported
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.erased_events import as_erased
from homeserver.rooms.history.message_lifetimes import MessageLifetimes
from homeserver.rooms.room.changes import membership_of
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room, StateKey
from homeserver.streams.positions import MAX_POSITION

_BATCH_SIZE = 100  # member events that are read together
_NEEDS_MEMBERS = ("invited", "joined")
MAX_PROFILE_CHANGES = 20  # examined to find the join of a user


class VisibleEvent(NamedTuple):
    """An event that a user may see, with their membership when it was sent.

    `relations` is the JSON of its bundled aggregations, if `BundledAggregations` has added it.
    """

    stored: StoredEvent
    membership: str
    relations: bytes | None = None


class Visibility:
    """Decides which events of a room's history each user sees."""

    def __init__(
        self,
        rooms: RoomRegistry,
        events: EventStore,
        erased: ErasedUsers,
        lifetimes: MessageLifetimes,
    ) -> None:
        self._rooms = rooms
        self._lifetimes = lifetimes
        self._erased = erased
        self._events = events

    async def may_see_now(self, room: Room, user_id: str) -> bool:
        """Whether a user may see new events in the room."""
        state = await self._rooms.current(room, [HISTORY_VISIBILITY_KEY])
        visibility = state.get(HISTORY_VISIBILITY_KEY)
        content = None if visibility is None else visibility.event.content
        return may_see(visibility_of(content), room.membership(user_id), joined_later=False)

    def may_have_expired(self, room: Room, events: Sequence[StoredEvent]) -> bool:
        """Whether some of the events may be older than the room keeps them: without waiting."""
        return self._lifetimes.may_have_expired(room, events)

    async def joined_until(self, room: Room, user_id: str) -> int:
        """The position up to which the user was last joined; 0 for a user who never was."""
        end = MAX_POSITION
        event_nid = room.member_events.get(user_id)
        while event_nid is not None:
            stored = (await self._events.load(room.version, [event_nid]))[event_nid]
            if stored.event.content.get("membership") == "join":
                return end
            end = stored.log_position
            event_nid = stored.replaces
        return 0

    async def _joined_since(self, room: Room, user_id: str) -> int:
        """The position above which the user was joined until now; endless if they are not.

        A member sees all new events, so nothing later needs a closer look. Events on another branch
        of a fork do: there the user may not have been in the room.
        """
        if room.members.get(user_id) != "join":
            return MAX_POSITION
        event_nid, since = room.member_events[user_id], MAX_POSITION
        for _ in range(MAX_PROFILE_CHANGES):
            stored = self._events.cached(event_nid)
            if stored is None:
                stored = (await self._events.load(room.version, [event_nid]))[event_nid]
            if stored.event.content.get("membership") != "join":
                break
            since = stored.log_position
            if stored.replaces is None:
                break
            event_nid = stored.replaces
        return max(since, room.forked_at)

    async def visible(
        self, room: Room, user_id: str, events: Sequence[StoredEvent]
    ) -> list[VisibleEvent]:
        """Those of the events that the user may see, in the same order.

        Events of erased users are shown redacted to users who were not there when they were sent.
        Messages that are older than the room keeps them are not shown.
        """
        if (cutoff := await self._lifetimes.cutoff(room)) is not None:
            events = [each for each in events if not cutoff.has_expired(each.event, each.position)]
        if not events:
            return []
        joined_since = await self._joined_since(room, user_id)
        if min(stored.visible_since for stored in events) > joined_since:
            return [VisibleEvent(stored, "join") for stored in events]
        joined_until = await self.joined_until(room, user_id)
        evaluations: dict[bytes, tuple[str, str | None]] = {}
        seen = []
        for stored in events:
            place = stored.visible_since
            if place > joined_since:
                seen.append(VisibleEvent(stored, "join"))
                continue
            root = stored.state_before
            if root not in evaluations:
                evaluations[root] = await self._evaluate(room, user_id, root)
            visibility, membership = evaluations[root]
            if may_see_event(
                stored.event,
                user_id,
                visibility=visibility,
                membership=membership,
                joined_later=place < joined_until,
            ):
                is_erased = membership != "join" and stored.event.sender in self._erased
                shown = as_erased(stored) if is_erased else stored
                seen.append(VisibleEvent(shown, _membership_after(stored, user_id, membership)))
        return seen

    async def kept(self, room: Room, events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
        """Those of the events that the room still keeps, by senders who are not erased.

        For events that every member may see.
        """
        events = [each for each in events if each.event.sender not in self._erased]
        if (cutoff := await self._lifetimes.cutoff(room)) is not None:
            events = [each for each in events if not cutoff.has_expired(each.event, each.position)]
        return events

    async def shown_to_server(
        self, room: Room, server: str, events: Sequence[StoredEvent]
    ) -> list[Event]:
        """The events for a server, in the same order: redacted where it may not see them.

        State events are never redacted, or the state would not be the same on all servers. What is
        left of other events is what a server needs to follow the graph. Messages of erased users
        are redacted for all servers, also for those that were there when they were sent: a server
        keeps the copy that it has, but does not get another from here.

        Spec: https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
        """
        visible = await self.seen_by_server(room, server, events)
        return [
            stored.shown if may_see and not self._is_erased(stored) else stored.event.redacted()
            for stored, may_see in zip(events, visible, strict=True)
        ]

    async def seen_by_server(
        self, room: Room, server: str, events: Sequence[StoredEvent]
    ) -> list[bool]:
        """Whether a server may see each of the events: one of its users may, or has sent it.

        No server sees an imported event. Where the history is shared with members, no member is
        read; otherwise one look-up in the state at each event finds all of the server's users, and
        their events are read only where they have changed since. Where visibility depends on
        members, and the state is partial, raises `UnableDueToPartialState`: the server would take a
        redacted event for the original.
        """
        users = [user_id for user_id in room.members if is_of_server(user_id, server)]
        if room.partial is not None and server in room.servers:
            joined_until = MAX_POSITION
        else:
            joined_until = await self._any_joined_until(room, users)
        evaluations: dict[bytes, tuple[str, frozenset[str]]] = {}
        results = []
        for stored in events:
            event, root = stored.event, stored.state_before
            if is_imported(event):
                results.append(False)
                continue
            may_see = event.is_state or event.sender_server == server
            if not may_see and not stored.status.is_outlier:
                if root not in evaluations:
                    evaluations[root] = await self._evaluate_for_server(room, users, root)
                visibility, memberships = evaluations[root]
                if room.partial is not None and visibility in _NEEDS_MEMBERS:
                    raise UnableDueToPartialState("This server does not have the full state yet")
                may_see = may_server_see_event(
                    event,
                    server,
                    visibility=visibility,
                    memberships=memberships,
                    joined_later=stored.log_position < joined_until,
                )
            results.append(may_see)
        return results

    def _is_erased(self, stored: StoredEvent) -> bool:
        """Whether other servers get an event only redacted, since its sender is erased."""
        return stored.event.sender in self._erased and not stored.event.is_state

    async def _any_joined_until(self, room: Room, users: Sequence[str]) -> int:
        """The position up to which any of the users was joined."""
        if any(room.members[user_id] == "join" for user_id in users):
            return MAX_POSITION
        return max([await self.joined_until(room, user_id) for user_id in users], default=0)

    async def _evaluate_for_server(
        self, room: Room, users: Sequence[str], root: bytes
    ) -> tuple[str, frozenset[str]]:
        state = await self.state_at(room, root, [HISTORY_VISIBILITY_KEY])
        event = state.get(HISTORY_VISIBILITY_KEY)
        visibility = visibility_of(None if event is None else event.event.content)
        if visibility not in _NEEDS_MEMBERS:
            return visibility, frozenset()
        return visibility, await self._memberships(room, users, root)

    async def _memberships(self, room: Room, users: Sequence[str], root: bytes) -> frozenset[str]:
        """Memberships that some of the users have in a state; `join` alone if one of them has."""
        event_nids = await self._rooms.state_nids_at(root, [(MEMBER, user) for user in users])
        changed, found = [], set()
        for key, event_nid in event_nids.items():
            if room.member_events.get(key[1]) == event_nid:
                found.add(room.members[key[1]])
            else:
                changed.append(event_nid)
        for start in range(0, len(changed), _BATCH_SIZE):
            if "join" in found:
                break
            events = await self._events.load(room.version, changed[start : start + _BATCH_SIZE])
            found.update(membership_of(stored) for stored in events.values())
        return frozenset(("join",)) if "join" in found else frozenset(found)

    async def state_at(
        self, room: Room, root: bytes, keys: Sequence[StateKey]
    ) -> dict[StateKey, StoredEvent]:
        """The state events with these keys in the state with this root."""
        return await self._rooms.state_at(room.version, root, keys)

    async def _evaluate(self, room: Room, user_id: str, root: bytes) -> tuple[str, str | None]:
        member = (MEMBER, user_id)
        state = await self.state_at(room, root, [HISTORY_VISIBILITY_KEY, member])
        visibility, own = state.get(HISTORY_VISIBILITY_KEY), state.get(member)
        return (
            visibility_of(None if visibility is None else visibility.event.content),
            None if own is None else own.event.content.get("membership"),
        )


def _membership_after(stored: StoredEvent, user_id: str, before: str | None) -> str:
    event = stored.event
    if is_member_event(event, user_id):
        membership: str = event.content["membership"]
        return membership
    return before or "leave"
