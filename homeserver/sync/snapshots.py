"""Snapshots: a room, or all rooms of a user, as they are now, with the newest messages.

`/sync` has replaced them, except for peeking into a room without joining it, where the event stream
continues from a snapshot.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Forbidden
from homeserver.protocol.event_types import RECEIPT
from homeserver.protocol.proposals.invite_filter import InviteAction
from homeserver.rooms.history.history import History, PageRequest
from homeserver.rooms.history.room_reader import ReadAccess, RoomReader
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import Membership
from homeserver.streams.tokens import START, stream_token, topological_token
from homeserver.sync.legacy_events import event_in, presence_event, room_event, state_event
from homeserver.sync.sources import Sources
from homeserver.sync.streamed_events import RoomPresence
from homeserver.sync.update import typed_event

DEFAULT_LIMIT = 10  # messages of each room

_Snapshot = dict[str, Any]


class Snapshots:
    """Makes snapshots of users and rooms."""

    def __init__(
        self, sources: Sources, reader: RoomReader, history: History, presence: RoomPresence
    ) -> None:
        self._sources = sources
        self._rooms = sources.rooms
        self._reader = reader
        self._history = history
        self._presence = presence

    async def of_user(self, caller: Requester, limit: int | None, *, archived: bool) -> _Snapshot:
        """All rooms that the user is in or is invited to, and with `archived` those they left."""
        end = stream_token(self._sources.log.seen.snapshot().base)
        places = await self._sources.user_rooms.of(caller.user_id)
        account_data = self._sources.account_data
        rooms: list[_Snapshot] = []
        receipts: list[_Snapshot] = []
        for number, place in list(places.items()):
            room = await self._rooms.by_number(number)
            if room is None:
                continue
            if place.membership == "invite":
                action = await account_data.invite_action(caller.user_id, place.sender)
                if action is InviteAction.ALLOW:
                    rooms.append(await self._invited(caller, room, place))
            elif place.membership == "join" or (
                archived and place.membership in ("leave", "ban") and not place.forgotten
            ):
                snapshot = await self._of_member(caller, room, place, end, limit)
                receipts += snapshot.pop("receipts", [])
                rooms.append(snapshot)
        presence = await self._sources.presence.events_since(caller.user_id, None)
        return {
            "end": end,
            "rooms": rooms,
            "receipts": receipts,
            "presence": [presence_event(event) for event in presence.events],
            "account_data": await self._account_data(caller, None),
        }

    async def of_room(self, caller: Requester, room_id: str, limit: int | None) -> _Snapshot:
        """One room that the user may read. Raises `Forbidden`."""
        end = stream_token(self._sources.log.seen.snapshot().base)
        access = await self._reader.access(caller.user_id, room_id)
        snapshot = await self._readable(caller, access, end, limit)
        place = (await self._sources.user_rooms.of(caller.user_id)).get(access.room.room_nid)
        if place is not None and not place.forgotten:
            snapshot["membership"] = place.membership
        presence = await self._presence.of_members(access.room) if access.is_current else []
        snapshot["presence"] = [presence_event(event) for event in presence]
        return snapshot

    async def _of_member(
        self, caller: Requester, room: Room, place: Membership, end: str, limit: int | None
    ) -> _Snapshot:
        snapshot: _Snapshot = {"room_id": room.room_id, "membership": place.membership}
        try:
            access = await self._reader.access(caller.user_id, room.room_id)
        except Forbidden:  # they declined an invite, and never saw the room
            return snapshot
        return snapshot | await self._readable(caller, access, end, limit)

    async def _readable(
        self, caller: Requester, access: ReadAccess, end: str, limit: int | None
    ) -> _Snapshot:
        room, now_ms = access.room, self._rooms.local_server.now_ms()
        ignored = await self._sources.account_data.ignored_users(caller.user_id)
        request = PageRequest(
            backwards=True,
            since=end,
            limit=DEFAULT_LIMIT if limit is None else limit,
            ignored=ignored,
        )
        page = await self._history.page(caller.user_id, room.room_id, request)
        state = await self._reader.state(caller.user_id, room.room_id)
        return {
            "room_id": room.room_id,
            "visibility": "public" if room.published else "private",
            "messages": {
                "start": page.end or topological_token(START),
                "end": end,
                "chunk": [room_event(seen, caller, now_ms) for seen in reversed(page.chunk)],
            },
            "state": [state_event(stored, caller, now_ms) for stored in state],
            "account_data": await self._account_data(caller, room.room_id),
            "receipts": await self._receipts(caller, access),
        }

    async def _invited(self, caller: Requester, room: Room, place: Membership) -> _Snapshot:
        events = await self._rooms.load_events(room, [place.event])
        invite = state_event(events[place.event], caller, self._rooms.local_server.now_ms())
        return {
            "room_id": room.room_id,
            "membership": place.membership,
            "inviter": place.sender,
            "invite": invite,
        }

    async def _receipts(self, caller: Requester, access: ReadAccess) -> list[_Snapshot]:
        if not access.is_current:
            return []
        room = access.room
        found = [
            event_in(room.room_id, event)
            for source in self._sources.ephemeral
            for event in await source.ephemeral_events(room, caller.user_id, None)
        ]
        return [event for event in found if event["type"] == RECEIPT]

    async def _account_data(self, caller: Requester, room_id: str | None) -> list[_Snapshot]:
        contents = await self._sources.account_data.of_room(caller.user_id, room_id)
        return [
            msgspec.json.decode(typed_event(event_type, content))
            for event_type, content in contents.items()
        ]
