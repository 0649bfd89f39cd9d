"""The notifications of events, made right before they are sent.

A user is not notified of what they have read meanwhile, of what was redacted, and of rooms that
they are not in any more. What is the same for all recipients of an event is encoded once.

Spec: https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify
"""

from typing import Any

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.events import Event
from homeserver.push.push_actions import PushActions
from homeserver.push.pushers.badges import Badges
from homeserver.push.pushers.invites import invites_user
from homeserver.push.pushers.push_notification import PushNotification
from homeserver.push.pushers.pusher import Pusher
from homeserver.push.pushers.queued_push import QueuedPush
from homeserver.push.pushers.room_titles import RoomTitle, RoomTitles, title_of_stripped_state
from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.membership.out_of_room_memberships import OutOfRoomMemberships
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import UserRooms

MAX_CONTENT_BYTES = 16_384  # a larger content is left out
MAX_CACHED_BYTES = 4_194_304  # of encoded events

_encode = msgspec.json.Encoder().encode


class EventNotifications:
    """Makes notifications; see `NotificationSource`."""

    def __init__(
        self,
        rooms: RoomRegistry,
        user_rooms: UserRooms,
        out_of_room: OutOfRoomMemberships,
        unread_counts: UnreadCounts,
        push_actions: PushActions,
        badges: Badges,
        titles: RoomTitles,
    ) -> None:
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._out_of_room = out_of_room
        self._unread_counts = unread_counts
        self._push_actions = push_actions
        self._badges = badges
        self._titles = titles
        # With the event that was encoded: a purge puts another one in its place.
        self._events: LruCache[int, tuple[Event, bytes]] = LruCache(
            "push_events", MAX_CACHED_BYTES, size_of=lambda _, encoded: len(encoded[1])
        )

    async def of_event(self, pusher: Pusher, push: QueuedPush) -> PushNotification | None:
        """The notification of an event; `None` if the user need not be notified any more."""
        user_id, stored = pusher.row.user_id, push.stored
        if stored.redaction is not None:
            return None
        if push.is_out_of_room:
            if not await self._is_pending(push, user_id):
                return None
            parts = [] if pusher.is_event_id_only else await self._stripped_parts(push, user_id)
        else:
            room = self._rooms.loaded(push.room_nid) or await self._rooms.by_number(push.room_nid)
            if room is None or not await self._is_wanted(room, push, user_id):
                return None
            parts = [] if pusher.is_event_id_only else await self._parts(room, stored, user_id)
        badge = await self._badges.total(user_id)
        return PushNotification(_fields(push, parts, badge), _device(pusher, push), badge)

    async def of_counts(self, pusher: Pusher) -> PushNotification | None:
        """The notification with the present counts; `None` if the device has them."""
        badge = await self._badges.total(pusher.row.user_id)
        if pusher.progress.badge is None or pusher.progress.badge == badge:
            return None
        return PushNotification(
            b'"counts":{"unread":%d},"prio":"low"' % badge, _device(pusher), badge
        )

    async def _is_wanted(self, room: Room, push: QueuedPush, user_id: str) -> bool:
        """Whether the user is still to be notified of an event."""
        stored = push.stored
        if invites_user(stored, user_id):
            return room.member_events.get(user_id) == stored.event_nid
        if stored.position is None or room.membership(user_id) != "join":
            return False
        while True:
            try:
                thread = self._push_actions.thread(room, stored)
                break
            except NotInMemory as missing:
                await missing.load()
        counter = await self._unread_counts.counter(room, user_id)
        return not counter.is_read(stored.position, thread)

    async def _is_pending(self, push: QueuedPush, user_id: str) -> bool:
        """Whether an invite to a room that this server is not in was not answered yet."""
        place = (await self._user_rooms.of(user_id)).get(push.room_nid)
        return place is not None and (place.membership, place.event) == (
            "invite",
            push.stored.event_nid,
        )

    async def _parts(self, room: Room, stored: StoredEvent, user_id: str) -> list[bytes]:
        """The fields of the event and its room, each after a comma."""
        event = stored.event
        known = self._events.get(stored.event_nid)
        if known is None or known[0] is not event:
            name = await self._titles.display_name(room, event.sender)
            known = self._events.put(stored.event_nid, (event, _event_json(event, name)))
        title = await self._titles.of(room)
        return [known[1], *_title_parts(title, user_id), *_target_parts(stored, user_id)]

    async def _stripped_parts(self, push: QueuedPush, user_id: str) -> list[bytes]:
        stripped = await self._out_of_room.stripped_state(push.room_nid, user_id)
        title, name = title_of_stripped_state(stripped, push.stored.event.sender)
        return [
            _event_json(push.stored.event, name),
            *_title_parts(title, user_id),
            *_target_parts(push.stored, user_id),
        ]


def _fields(push: QueuedPush, parts: list[bytes], badge: int) -> bytes:
    event = push.stored.event
    return b"".join(
        [
            b'"event_id":',
            _encode(event.event_id),
            b',"room_id":',
            _encode(event.room_id),
            *parts,
            b',"prio":"high"' if push.is_urgent else b',"prio":"low"',
            b',"counts":{"unread":%d}' % badge,
        ]
    )


def _device(pusher: Pusher, push: QueuedPush | None = None) -> bytes:
    if push is None or pusher.is_event_id_only:
        return pusher.device_json + b"}"
    return b'%b,"tweaks":%b}' % (pusher.device_json, push.tweaks)


def _event_json(event: Event, sender_name: str | None) -> bytes:
    """The fields of an event, without braces and after a comma.

    `id` is an old name of `event_id`, which some gateways still read.
    """
    fields: dict[str, Any] = {"id": event.event_id, "type": event.type, "sender": event.sender}
    if sender_name is not None:
        fields["sender_display_name"] = sender_name
    if is_member_event(event):
        fields["membership"] = event.content.get("membership")
    content = _encode(event.content)
    if len(content) <= MAX_CONTENT_BYTES:
        fields["content"] = msgspec.Raw(content)
    return b"," + _encode(fields)[1:-1]


def _title_parts(title: RoomTitle, user_id: str) -> list[bytes]:
    parts = []
    shown = title.shown_to(user_id)
    if shown is not None:
        parts += [b',"room_name":', _encode(shown)]
    if title.alias is not None:
        parts += [b',"room_alias":', _encode(title.alias)]
    return parts


def _target_parts(stored: StoredEvent, user_id: str) -> list[bytes]:
    if not is_member_event(stored.event):
        return []
    is_target = stored.event.state_key == user_id
    return [b',"user_is_target":true' if is_target else b',"user_is_target":false']
