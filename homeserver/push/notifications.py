"""Notifications: the events that notified a user, in all their rooms, newest first.

Nothing is stored for it: a page walks back through the rooms and evaluates the current push rules
for their events, and the current filter for invites. It examines a bounded number of events, so it
may end early, with a position to continue from.

Spec: https://spec.matrix.org/v1.19/client-server-api/#listing-notifications
"""

from collections.abc import Sequence

import msgspec

from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.push_rules.rule_set import Action
from homeserver.push.members import Member, Members
from homeserver.push.push_actions import PushActions
from homeserver.push.recent_events import RecentEvents
from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.history.visibility import VisibleEvent
from homeserver.rooms.room.room import Room
from homeserver.streams.positions import MAX_POSITION

BATCH_SIZE = 100  # events that are loaded together
MAX_EXAMINED_EVENTS = 1_000


class Notification(msgspec.Struct, frozen=True):
    """An event that notified a user, and whether they have read it."""

    room_id: str
    event: VisibleEvent
    actions: Sequence[Action]
    read: bool


class NotificationPage(msgspec.Struct, frozen=True):
    """Notifications, newest first. More may be found at `next` and below, unless it is `None`."""

    notifications: Sequence[Notification]
    next: int | None


class Notifications:
    """Lists notifications."""

    def __init__(
        self,
        recent: RecentEvents,
        members: Members,
        push_actions: PushActions,
        unread_counts: UnreadCounts,
    ) -> None:
        self._recent = recent
        self._members = members
        self._push_actions = push_actions
        self._unread_counts = unread_counts

    async def page(
        self, user_id: str, *, limit: int, upto: int = MAX_POSITION, highlights_only: bool = False
    ) -> NotificationPage:
        """At most `limit` notifications of events up to a position of the log."""
        found: list[Notification] = []
        at: int | None = upto
        examined = 0
        while at is not None and examined < MAX_EXAMINED_EVENTS:
            chunk = await self._recent.chunk(user_id, at, BATCH_SIZE)
            examined += BATCH_SIZE
            members: dict[int, Member] = {}
            for room, seen in chunk.events:
                if room.room_nid not in members:
                    members[room.room_nid] = await self._members.load(room, user_id)
                notification = await self._notification(
                    room, members[room.room_nid], seen, highlights_only
                )
                if notification is not None:
                    found.append(notification)
                    if len(found) == limit:
                        return NotificationPage(found, (seen.stored.position or 1) - 1)
            at = chunk.next
        return NotificationPage(found, at)

    async def _notification(
        self, room: Room, member: Member, seen: VisibleEvent, highlights_only: bool
    ) -> Notification | None:
        if seen.membership == "invite" and not await self._members.allows_invite(
            member.user_id, seen.stored.event.sender
        ):
            return None
        while True:
            try:
                outcome = self._push_actions.outcome(room, member, seen.stored, None)
                if not outcome.notify or (highlights_only and not outcome.highlight):
                    return None
                thread = self._push_actions.thread(room, seen.stored)
                break
            except NotInMemory as missing:
                await missing.load()
        read = False
        if room.membership(member.user_id) == "join":
            counter = await self._unread_counts.counter(room, member.user_id)
            read = counter.is_read(seen.stored.position or 0, thread)
        return Notification(room.room_id, seen, outcome.actions, read)
