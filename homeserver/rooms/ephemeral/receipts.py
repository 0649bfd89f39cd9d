"""Receipts: how far each user has read in each room, public (`m.read`) or private.

There is one receipt for each user, type and thread of a room, and it never moves back: one for an
event before that of the stored receipt is ignored. Public and private receipts of a user are
independent.

The receipts of a room that is being read are held in memory, in the order of their changes, so that
"what is new since this token" costs as much as there is new. What is the same for all readers is
encoded once for all of them.

Spec: https://spec.matrix.org/v1.19/client-server-api/#receipts
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import InvalidParam, UserLimitExceeded
from homeserver.protocol.identifiers import is_valid_event_id
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_receipts import MAIN, ReceiptChanged, RoomReceipts
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names
from homeserver.storage.rooms.receipts import UPSERT_RECEIPT, receipts_in, rooms_with_receipts_after
from homeserver.streams.log import Log
from homeserver.streams.log_cache import LogCache

READ, READ_PRIVATE = "m.read", "m.read.private"

MAX_RECEIPTS = 200_000  # of all rooms in memory together; about 300 bytes each
MAX_CHANGED = 100_000  # rooms with a remembered last change
MAX_OF_USER = 2_000  # of one user in one room: one for each thread and type


class Receipts:
    """The receipts of all rooms. Subscribe `apply` to the log."""

    def __init__(self, db: Database, log: Log, names: Names, local_server: LocalServer) -> None:
        self._db = db
        self._origin = local_server
        self._log = log
        self._names = names
        self._rooms: LogCache[int, RoomReceipts, ReceiptChanged] = LogCache(
            LruCache("receipts", MAX_RECEIPTS, size_of=lambda _, receipts: len(receipts)),
            self._load,
            RoomReceipts.put,
        )
        # Receipts that were appended to the log and are not published yet.
        self._queued: dict[tuple[Any, ...], ReceiptChanged] = {}
        # The last change of each room above `_floor`; changes at lower positions are unknown here.
        self._changed: OrderedDict[int, int] = OrderedDict()
        self._floor = self._log.position

    async def move(
        self,
        room: Room,
        user_id: str,
        receipt_type: str,
        event_id: str,
        event_position: int | None,
        *,
        thread_id: str | None = None,
        ts: int | None = None,
    ) -> None:
        """Move a user's receipt forward to an event; does nothing if that would be a step back.

        `event_position` is the event's place in the timeline, if it has one. `thread_id` is `None`
        for a receipt of the whole room, `ts` (ms since the epoch) for one that is made now. The
        caller has checked the user's access, and the thread (`check_thread_id`).

        Threads and events need not exist here: other servers send receipts for events that have not
        arrived yet. So the number of threads is bounded.

        Raises `InvalidParam` for an invalid event id, `UserLimitExceeded` for too many threads,
        `Unavailable` while the database is unavailable.
        """
        if not is_valid_event_id(event_id):
            raise InvalidParam(f"{event_id!r} is not the id of an event")
        self._log.check_open()
        member = await self._names.nid(user_id)
        entry = await self._rooms.get(room.room_nid)
        key = (room.room_nid, user_id, receipt_type, thread_id)
        known = self._queued.get(key) or entry.find(user_id, receipt_type, thread_id)
        if known is not None and not known.is_before(event_id, event_position):
            return
        if known is None and thread_id is not None and entry.count_of(user_id) >= MAX_OF_USER:
            raise UserLimitExceeded(f"A user has at most {MAX_OF_USER} receipts in a room")
        receipt = ReceiptChanged(
            self._log.next_position(),
            room.room_nid,
            user_id,
            receipt_type,
            thread_id,
            event_id,
            event_position,
            self._origin.now_ms() if ts is None else ts,
        )
        self._queued[key] = receipt
        await self._log.append(receipt, [_row(member, receipt)])

    async def of_user(self, room: Room, user_id: str) -> list[ReceiptChanged]:
        """All receipts of one user in a room, private ones and those of threads included."""
        return (await self._rooms.get(room.room_nid)).of_user(user_id)

    async def events_since(self, room: Room, user_id: str, since: int | None) -> msgspec.Raw | None:
        """The `m.receipt` event with what changed for a reader above `since`; `None` for nothing.

        It holds all public receipts and the reader's own private ones. For `since=None` these are
        all that there are.
        """
        if since is not None and not self.may_have_changed(room.room_nid, since):
            return None
        return (await self._rooms.get(room.room_nid)).event(user_id, since)

    async def events_at(
        self, room: Room, user_id: str, event_ids: Collection[str]
    ) -> msgspec.Raw | None:
        """The `m.receipt` event with the reader's own receipts, and the public ones at events."""
        return (await self._rooms.get(room.room_nid)).event_at(user_id, event_ids)

    def may_have_changed(self, room: int, since: int) -> bool:
        """False if nothing changed in a room above a position; needs no waiting."""
        return since < self._floor or self._changed.get(room, 0) > since

    async def ephemeral_events(
        self, room: Room, user_id: str, since: int | None
    ) -> Sequence[msgspec.Raw]:
        """`events_since` as a list, like the other sources of ephemeral events."""
        event = await self.events_since(room, user_id, since)
        return () if event is None else (event,)

    async def get_ready(self, rooms: Collection[int]) -> None:
        """Have the receipts of rooms in memory, read together."""
        await self._rooms.get_ready(rooms, self._load_all)

    async def changed_rooms(self, rooms: Collection[int], since: int) -> set[int]:
        """Those of the rooms in which any receipt changed above a position."""
        if since < self._floor:
            return await self._db.run(rooms_with_receipts_after, rooms, since)
        return {room for room in rooms if self._changed.get(room, 0) > since}

    def apply(self, entries: Sequence[Any]) -> None:
        """Publish the receipts of a batch (called by the log)."""
        for entry in entries:
            if isinstance(entry, ReceiptChanged):
                self._publish(entry)
        while len(self._changed) > MAX_CHANGED:
            self._floor = max(self._floor, self._changed.popitem(last=False)[1])

    def _publish(self, receipt: ReceiptChanged) -> None:
        room = receipt.room
        key = (room, receipt.user_id, receipt.receipt_type, receipt.thread_id)
        if self._queued.get(key) is receipt:
            del self._queued[key]
        self._changed[room] = receipt.position
        self._changed.move_to_end(room)
        self._rooms.publish(room, receipt)

    async def _load(self, room: int) -> RoomReceipts:
        return (await self._load_all([room]))[room]

    async def _load_all(self, rooms: Sequence[int]) -> dict[int, RoomReceipts]:
        rows = await self._db.run(receipts_in, rooms)
        names = await self._names.names({row.member for row in rows})
        entries = {room: RoomReceipts() for room in rooms}
        for row in rows:
            entries[row.room].put(
                ReceiptChanged(
                    row.position,
                    row.room,
                    names[row.member],
                    row.receipt_type,
                    row.thread_id or None,
                    row.event_id,
                    row.event_position,
                    row.ts,
                )
            )
        return entries


def check_thread_id(value: object) -> str | None:
    """The thread that a client or a server named, `None` for `UNSET`; raises `InvalidParam`."""
    if value is msgspec.UNSET:
        return None
    if not isinstance(value, str) or not (value == MAIN or is_valid_event_id(value)):
        raise InvalidParam(f"thread_id must be {MAIN!r} or the id of an event")
    return value


def _row(member: int, receipt: ReceiptChanged) -> Any:
    return UPSERT_RECEIPT.row(
        receipt.room,
        member,
        receipt.receipt_type,
        receipt.thread_id or "",
        receipt.event_id,
        receipt.event_position,
        receipt.ts,
        receipt.position,
    )
