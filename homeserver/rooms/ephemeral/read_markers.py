"""Read markers: how far local users have read, as their clients report it.

`m.read` and `m.read.private` are receipts; `m.fully_read` is account data of the room. None of them
moves back, and all of them name an event of the room that this server has.

Spec: https://spec.matrix.org/v1.19/client-server-api/#read-and-unread-markers
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.concurrency.deferreds import gather_all
from homeserver.protocol.errors import InvalidParam, NotFound
from homeserver.protocol.event_kinds import is_redaction
from homeserver.protocol.event_types import FULLY_READ
from homeserver.protocol.identifiers import is_valid_event_id
from homeserver.rooms.ephemeral.receipt_bursts import ReceiptBursts, is_joined, not_in_the_room
from homeserver.rooms.ephemeral.receipts import READ, READ_PRIVATE, Receipts, check_thread_id
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_receipts import MAIN, Receipt

MAX_HOPS = 3  # from an event to the one that belongs to a thread, as the specification recommends


class ReadMarkers:
    """Moves the markers of local users."""

    def __init__(
        self,
        rooms: RoomRegistry,
        events: EventStore,
        receipts: Receipts,
        account_data: AccountData,
    ) -> None:
        self._rooms = rooms
        self._events = events
        self._account_data = account_data
        self._receipt_bursts = ReceiptBursts(rooms, receipts)
        # Positions of fully read markers that are being written, by user and room.
        self._moving: dict[tuple[str, int], int] = {}

    async def mark(
        self,
        caller: Requester,
        room_id: str,
        receipt_type: str,
        event_id: str,
        thread_id: object = msgspec.UNSET,
    ) -> None:
        """Move one marker to an event; `thread_id` is what the client sent, of any type.

        Raises `InvalidParam` for an unknown type of receipt or a thread that does not fit,
        `Forbidden` outside of the room, `NotFound` for an event that is not in it.
        """
        if receipt_type not in (READ, READ_PRIVATE, FULLY_READ):
            raise InvalidParam(f"{receipt_type!r} is not a type of receipt")
        thread = check_thread_id(thread_id)
        if thread is not None and receipt_type == FULLY_READ:
            raise InvalidParam("m.fully_read applies to the whole room, and takes no thread_id")
        room = await self._joined_room(caller.user_id, room_id)
        stored = await self._event(room, event_id)
        if thread is not None:
            await self._check_in_thread(room, stored, thread)
        if receipt_type == FULLY_READ:
            await self._move_fully_read(room, caller.user_id, stored)
        else:
            receipt = self._receipt(caller.user_id, receipt_type, stored, thread)
            await self._receipt_bursts.move(room, caller.user_id, (receipt,))

    async def mark_all(self, caller: Requester, room_id: str, markers: dict[str, str]) -> None:
        """Move several markers, by type, all or none of them; raises what `mark` does."""
        room = await self._joined_room(caller.user_id, room_id)
        events = {kind: await self._event(room, event) for kind, event in markers.items()}
        fully_read = events.pop(FULLY_READ, None)
        receipts = [
            self._receipt(caller.user_id, receipt_type, stored, None)
            for receipt_type, stored in events.items()
        ]
        moves = []
        if fully_read is not None:
            moves.append(self._move_fully_read(room, caller.user_id, fully_read))
        if receipts:
            moves.append(self._receipt_bursts.move(room, caller.user_id, receipts))
        await gather_all(moves)

    async def _joined_room(self, user_id: str, room_id: str) -> Room:
        room = await self._rooms.find(room_id)
        if room is None or not is_joined(room, user_id):
            raise not_in_the_room()
        return room

    async def _find_event(self, room: Room, event_id: str) -> StoredEvent | None:
        # Anything but an event id cannot be looked up: it may have characters that the database
        # cannot.
        if not is_valid_event_id(event_id):
            return None
        return await self._events.find(room.version, room.room_nid, room.room_id, event_id)

    async def _event(self, room: Room, event_id: str) -> StoredEvent:
        stored = await self._find_event(room, event_id)
        if stored is None:
            raise NotFound("The event is not in the room")
        return stored

    def _receipt(
        self, user_id: str, receipt_type: str, stored: StoredEvent, thread: str | None
    ) -> Receipt:
        event_id, now = stored.event.event_id, self._rooms.local_server.now_ms()
        return Receipt(user_id, receipt_type, thread, event_id, stored.position, now)

    async def _move_fully_read(self, room: Room, user_id: str, stored: StoredEvent) -> None:
        """Spec: https://spec.matrix.org/v1.19/client-server-api/#fully-read-markers"""
        position = stored.log_position
        marked = await self._fully_read_position(room, user_id)
        key = (user_id, room.room_nid)
        if position <= max(marked, self._moving.get(key, 0)):
            return
        self._moving[key] = position
        try:
            content = {"event_id": stored.event.event_id}
            await self._account_data.set(user_id, room.room_id, FULLY_READ, content)
        finally:
            if self._moving.get(key) == position:
                del self._moving[key]

    async def _fully_read_position(self, room: Room, user_id: str) -> int:
        content = await self._account_data.content(user_id, FULLY_READ, room.room_id)
        if content is None:
            return 0
        event_id = msgspec.json.decode(content).get("event_id")
        stored = await self._find_event(room, event_id) if isinstance(event_id, str) else None
        return 0 if stored is None else stored.log_position

    async def _check_in_thread(self, room: Room, stored: StoredEvent, thread: str) -> None:
        """Raise `InvalidParam` for an event that is in another thread, as far as this server can
        know.

        The root of a thread is in the main timeline, but clients also mark it as read in its own
        thread. A redacted event no longer shows where it belongs, and a redaction never does, so
        clients place them freely.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts
        """
        if stored.redaction is not None or is_redaction(stored.event):
            return
        if thread == stored.event.event_id:
            return
        current: StoredEvent | None = stored
        for _ in range(MAX_HOPS + 1):
            if current is None:
                return  # a parent that this server does not have
            kind, parent = _relation(current)
            if parent is None:
                break
            if kind == "m.thread":
                if parent != thread:
                    raise InvalidParam("The event is not in this thread")
                return
            current = await self._find_event(room, parent)
        if thread != MAIN:
            raise InvalidParam("The event is not in this thread")


def _relation(stored: StoredEvent) -> tuple[str | None, str | None]:
    """The type of an event's relation, and the event that it relates to."""
    relates_to: Any = stored.event.content.get("m.relates_to")
    if not isinstance(relates_to, dict):
        return None, None
    kind, parent = relates_to.get("rel_type"), relates_to.get("event_id")
    if not isinstance(kind, str) or not isinstance(parent, str):
        return None, None
    return kind, parent
