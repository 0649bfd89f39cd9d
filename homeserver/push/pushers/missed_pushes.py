"""Missed pushes: the events that a pusher could not send, as far as they still notify the user.

They are looked for among the events of the user's rooms, a page at a time. What is older than a day
(or `max_age_seconds`) is not pushed any more: the count of unread messages says that it is there.
"""

from collections.abc import Sequence

from homeserver.concurrency.clock import Clock, wall_seconds
from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.push.members import Member, Members
from homeserver.push.push_actions import PushActions
from homeserver.push.pushers.invites import Invites, invites_user
from homeserver.push.pushers.pusher import Pusher
from homeserver.push.pushers.queued_push import QueuedPush, build_push
from homeserver.push.recent_events import RecentEvents
from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.streams.log import Log
from homeserver.streams.positions import position_at

CHUNK_EVENTS = 100
MAX_AGE_SECONDS = 86_400.0


class FoundMissedPushes:
    """Finds missed pushes; see `MissedPushes`."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        recent: RecentEvents,
        rooms: RoomRegistry,
        user_rooms: UserRooms,
        members: Members,
        push_actions: PushActions,
        unread_counts: UnreadCounts,
        invites: Invites,
        max_age_seconds: float | None = None,
    ) -> None:
        self._log = log
        self._clock = clock
        self._recent = recent
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._members = members
        self._push_actions = push_actions
        self._unread_counts = unread_counts
        self._invites = invites
        self._max_age = max_age_seconds

    @property
    def position(self) -> int:
        """The position up to which everything can be found now."""
        return self._log.position

    async def after(
        self, pusher: Pusher, after: int, upto: int
    ) -> tuple[Sequence[QueuedPush], int]:
        """The next pushes after a position, oldest first, and the position up to which they are.

        There are none if this position is `upto`.
        """
        user_id = pusher.row.user_id
        max_age = MAX_AGE_SECONDS if self._max_age is None else self._max_age
        oldest = position_at(wall_seconds(self._clock) - max_age)
        at: int | None = max(after, min(oldest, upto))
        while at is not None:
            chunk = await self._recent.chunk_after(user_id, at, upto, CHUNK_EVENTS)
            end = upto if chunk.next is None else chunk.next
            found = await self._invites_out_of_room(user_id, at, end)
            members: dict[int, Member] = {}
            for room, seen in chunk.events:
                if room.room_nid not in members:
                    members[room.room_nid] = await self._members.load(room, user_id)
                push = await self._push(room, members[room.room_nid], seen.stored)
                if push is not None:
                    found.append(push)
            if found:
                return sorted(found, key=lambda push: push.position), end
            at = chunk.next
        return (), upto

    async def _push(self, room: Room, member: Member, stored: StoredEvent) -> QueuedPush | None:
        position = stored.position or 0
        if invites_user(stored, member.user_id):
            outcome = await self._invites.outcome(stored, member.user_id, room)
        elif room.membership(member.user_id) != "join":
            return None
        else:
            counter = await self._unread_counts.counter(room, member.user_id)
            while True:
                try:
                    thread = self._push_actions.thread(room, stored)
                    if counter.is_read(position, thread):
                        return None
                    outcome = self._push_actions.outcome(room, member, stored, None)
                    break
                except NotInMemory as missing:
                    await missing.load()
        if not outcome.notify:
            return None
        return build_push(position, room.room_nid, stored, outcome)

    async def _invites_out_of_room(self, user_id: str, after: int, upto: int) -> list[QueuedPush]:
        """The invites to rooms that this server is not in."""
        places = [
            (place.position, room_nid, place.event)
            for room_nid, place in (await self._user_rooms.of(user_id)).items()
            if place.membership == "invite" and after < place.position <= upto
        ]
        found: list[QueuedPush] = []
        for position, room_nid, event_nid in sorted(places):
            room = await self._rooms.by_number(room_nid)
            if room is None:
                continue
            stored = (await self._rooms.load_events(room, [event_nid]))[event_nid]
            if stored.position is None:
                outcome = await self._invites.outcome(stored, user_id, None)
                if outcome.notify:
                    found.append(
                        build_push(position, room_nid, stored, outcome, is_out_of_room=True)
                    )
        return found
