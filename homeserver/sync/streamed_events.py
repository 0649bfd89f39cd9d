"""The events since a position of the log, as one list, oldest first.

Events of rooms come in the order of the log, as many as fit, so that none is left out between one
list and the next. The rest (typing, receipts, presence, account data) is sent at least once.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.presence.presence_changed import PresenceUpdate
from homeserver.protocol.proposals.invite_filter import InviteAction
from homeserver.rooms.history.room_reader import ReadAccess
from homeserver.rooms.history.visibility import Visibility, VisibleEvent
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import MemberRooms, Membership
from homeserver.storage.rooms.events import events_after
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.legacy_events import event_in, presence_event, room_event
from homeserver.sync.sources import Sources
from homeserver.sync.sync_span import SyncSpan
from homeserver.sync.update import typed_event

LIMIT = 100  # events of rooms in one list

_Events = list[dict[str, Any]]


class RoomPresence(Protocol):
    """The source of the presence of a room's members."""

    def events_in(self, room: Room, since: SyncToken) -> PresenceUpdate:
        """`m.presence` events of members, changed above `since`."""

    async def of_members(self, room: Room) -> Sequence[msgspec.Raw]:
        """`m.presence` events of members as they are now."""


class EventSlice(msgspec.Struct, frozen=True):
    """The events between two tokens."""

    start: SyncToken
    end: SyncToken
    chunk: Sequence[dict[str, Any]] = ()


class StreamedEvents:
    """Makes event slices of one room, or of all rooms of a user."""

    def __init__(self, sources: Sources, visibility: Visibility, presence: RoomPresence) -> None:
        self._sources = sources
        self._rooms = sources.rooms
        self._visibility = visibility
        self._presence = presence

    async def in_room(
        self, caller: Requester, access: ReadAccess, token: SyncToken, limit: int | None = None
    ) -> EventSlice:
        """The events of one room that the caller may see."""
        span, room = SyncSpan(token, self._sources.log.seen.snapshot()), access.room
        since, now = token.of_room(room.room_nid), span.of_room(room.room_nid)[1]
        if now <= since:
            return EventSlice(token, token)
        size = _size(limit)
        rows = await self._sources.db.run(events_after, [room.room_nid], since, now, size)
        seen = await self._seen(room, caller, [event for _, _, event in rows])
        now_ms = self._rooms.local_server.now_ms()
        chunk = [room_event(each, caller, now_ms) for each in seen if access.includes(each.stored)]
        if access.is_current:
            chunk += await self._ephemeral(room, caller, since)
            presence = self._presence.events_in(room, token)
            chunk += [presence_event(event) for event in presence.events]
            span.has_users((change.user_id, change.position) for change in presence.changes)
        span.has_room(room.room_nid, now)
        return EventSlice(token, span.token_upto(_end(rows, size, now)), chunk)

    async def in_all_rooms(
        self, caller: Requester, token: SyncToken, limit: int | None = None
    ) -> EventSlice:
        """The events of the caller's rooms and account."""
        highest = self._sources.log.seen.highest
        span = SyncSpan(token, self._sources.log.seen.snapshot())
        if highest <= token.base:
            return EventSlice(token, token)
        places = await self._sources.user_rooms.of(caller.user_id)
        numbers = [
            room_nid
            for room_nid, place in places.items()
            if place.membership == "join" or place.position > token.of_room(room_nid)
        ]
        size = _size(limit)
        rows = await self._sources.db.run(events_after, numbers, token.base, highest, size)
        published = [row for row in rows if _is_within(span, row)]
        for position, room_nid, _ in published:
            span.has_room(room_nid, position)
        chunk = await self._from_rooms(caller, places, published)
        chunk += await self._ephemeral_of_all(caller, places, span)
        presence = await self._sources.presence.events_since(caller.user_id, token)
        chunk += [presence_event(event) for event in presence.events]
        span.has_users((change.user_id, change.position) for change in presence.changes)
        if account_data := await self._account_data(caller, token.of_user(caller.user_id)):
            span.has_user(caller.user_id)
        return EventSlice(token, span.token_upto(_end(rows, size, highest)), chunk + account_data)

    async def _from_rooms(
        self, caller: Requester, places: MemberRooms, rows: Sequence[tuple[int, int, int]]
    ) -> _Events:
        """The events of all rooms, in the order of the log."""
        ignored = await self._sources.account_data.ignored_users(caller.user_id)
        now_ms = self._rooms.local_server.now_ms()
        found: list[VisibleEvent] = []
        for room_nid in {room_nid for _, room_nid, _ in rows}:
            room, place = await self._rooms.by_number(room_nid), places[room_nid]
            if room is None or not await self._is_shown(caller, place):
                continue
            events = [event for _, at, event in rows if at == room_nid]
            if place.membership in ("invite", "knock"):
                # A user who is not in the room yet gets their own member event only.
                own = [event for event in events if event == place.event]
                stored = await self._rooms.load_events(room, own)
                seen = [VisibleEvent(each, place.membership) for each in stored.values()]
            else:
                seen = await self._seen(room, caller, events)
            found += [
                each
                for each in seen
                if each.stored.event.state_key is not None
                or each.stored.event.sender not in ignored
            ]
        found.sort(key=lambda each: each.stored.position or 0)
        return [room_event(each, caller, now_ms) for each in found]

    async def _is_shown(self, caller: Requester, place: Membership) -> bool:
        """Whether a room is shown to a user: all but those of invites that they do not want."""
        if place.membership != "invite":
            return True
        action = await self._sources.account_data.invite_action(caller.user_id, place.sender)
        return action is InviteAction.ALLOW

    async def _seen(
        self, room: Room, caller: Requester, numbers: Sequence[int]
    ) -> list[VisibleEvent]:
        events = await self._rooms.load_events_in_order(room, numbers)
        return await self._visibility.visible(room, caller.user_id, events)

    async def _ephemeral_of_all(
        self, caller: Requester, places: MemberRooms, span: SyncSpan
    ) -> _Events:
        token = span.since or SyncToken(0)
        joined = [room_nid for room_nid, place in places.items() if place.membership == "join"]
        changed: set[int] = set()
        for source in self._sources.ephemeral:
            changed.update(await source.changed_rooms(joined, token.base))
        found: _Events = []
        for room_nid in sorted(changed):
            room = await self._rooms.by_number(room_nid)
            if room is not None and (
                events := await self._ephemeral(room, caller, token.of_room(room_nid))
            ):
                found += events
                span.has_room(room_nid, span.of_room(room_nid)[1])
        return found

    async def _ephemeral(self, room: Room, caller: Requester, since: int) -> _Events:
        found: _Events = []
        for source in self._sources.ephemeral:
            for event in await source.ephemeral_events(room, caller.user_id, since):
                found.append(event_in(room.room_id, event))
        return found

    async def _account_data(self, caller: Requester, since: int) -> _Events:
        found: _Events = []
        changes = await self._sources.account_data.changed_since(caller.user_id, since)
        for room_id, event_type, content in changes:
            event = typed_event(event_type, content)
            if room_id is None:
                found.append(msgspec.json.decode(event))
            else:
                found.append(event_in(room_id, event))
        return found


def _size(limit: int | None) -> int:
    """The maximum number of room events in a list."""
    return LIMIT if limit is None else min(limit, LIMIT)


def _is_within(span: SyncSpan, row: tuple[int, int, int]) -> bool:
    """Whether an event, (position, room, event), is in the span of its room."""
    since, now = span.of_room(row[1])
    return (since or 0) < row[0] <= now


def _end(rows: Sequence[tuple[int, int, int]], size: int, now: int) -> int:
    """The position at which the list ends: there may be more room events than fit into it."""
    return rows[-1][0] if len(rows) == size else now
