"""Receipts: how far each user has read in each room, public (`m.read`) or private.

There is one receipt for each user, type and thread of a room, and it never moves back: one for an
event before that of the stored receipt is ignored. Public and private receipts of a user are
independent. Receipts of a room that move together are one entry of the log.

The receipts of a room that is being read are held in memory, in the order of their changes, so that
"what is new since this token" costs as much as there is new. What is the same for all readers is
encoded once for all of them.

Spec: https://spec.matrix.org/v1.19/client-server-api/#receipts
"""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any, TypeGuard

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.identifiers import is_valid_event_id
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_receipts import MAIN, Receipt, ReceiptsChanged, RoomReceipts
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names
from homeserver.storage.rooms.receipts import UPSERT_RECEIPT, receipts_in, rooms_with_receipts_after
from homeserver.streams.log import Log
from homeserver.streams.log_cache import LogCache

READ, READ_PRIVATE = "m.read", "m.read.private"

MAX_RECEIPTS = 200_000  # of all rooms in memory together; about 300 bytes each
MAX_CHANGED = 100_000  # rooms with a remembered last change
MAX_OF_USER = 2_000  # of one user in one room: one for each thread and type

_Key = tuple[int, str, str, str | None]  # room, user, type and thread


class Receipts:
    """The receipts of all rooms. Subscribe `apply` to the log."""

    def __init__(self, db: Database, log: Log, names: Names) -> None:
        self._db = db
        self._log = log
        self._names = names
        self._rooms: LogCache[int, RoomReceipts, ReceiptsChanged] = LogCache(
            LruCache("receipts", MAX_RECEIPTS, size_of=lambda _, receipts: len(receipts)),
            self._load,
            RoomReceipts.apply,
        )
        # Receipts that were appended to the log and are not published yet.
        self._queued: dict[_Key, Receipt] = {}
        # The last change of each room above `_floor`; changes at lower positions are unknown here.
        self._changed: OrderedDict[int, int] = OrderedDict()
        self._floor = self._log.position

    async def move(self, room: Room, receipts: Sequence[Receipt]) -> Collection[Receipt]:
        """Move receipts of a room forward, in their order; those that would step back have no
        effect.

        Returns those that are refused, since their user has too many threads: threads and events
        need not exist here, as other servers send receipts for events that have not arrived yet.
        The caller has checked the access of the users, and the ids of the events and of the threads
        (`is_thread_id`).

        It appends without waiting where the receipts and names are in memory (`get_ready_to_move`).
        Raises `Unavailable` while the database is unavailable.
        """
        self._log.check_open()
        members = await self._names.nids([receipt.user_id for receipt in receipts])
        moved, refused = self._select(room.room_nid, await self._rooms.get(room.room_nid), receipts)
        if moved:
            position = self._log.next_position()
            self._queued |= moved
            entry = ReceiptsChanged(position, room.room_nid, tuple(moved.values()))
            rows = [
                _row(room.room_nid, members[receipt.user_id], receipt, position)
                for receipt in entry.receipts
            ]
            await self._log.append(entry, rows)
        return refused

    def _select(
        self, room: int, known: RoomReceipts, receipts: Sequence[Receipt]
    ) -> tuple[dict[_Key, Receipt], list[Receipt]]:
        """Those that move, one for each user, type and thread, and those that are refused."""
        moved: dict[_Key, Receipt] = {}
        added: dict[str, int] = {}
        refused: list[Receipt] = []
        for receipt in receipts:
            user_id, kind, thread = receipt.user_id, receipt.receipt_type, receipt.thread_id
            key = room, user_id, kind, thread
            last = moved.get(key) or self._queued.get(key) or known.find(user_id, kind, thread)
            if last is None:
                count = added.get(user_id, 0)
                if thread is not None and known.count_of(user_id) + count >= MAX_OF_USER:
                    refused.append(receipt)
                    continue
                added[user_id] = count + 1
            elif not last.may_move_to(receipt):
                continue
            moved[key] = receipt
        return moved, refused

    async def get_ready_to_move(self, rooms: Collection[int], user_ids: Collection[str]) -> None:
        """Have in memory what receipts of these users in these rooms need to move.

        Raises `Unavailable` while the database is unavailable.
        """
        await self._names.nids(user_ids)
        await self.get_ready(rooms)

    async def of_user(self, room: Room, user_id: str) -> list[Receipt]:
        """All receipts of one user in a room, private ones and those of threads included."""
        return (await self._rooms.get(room.room_nid)).of_user(user_id)

    async def have_moved(self, room: Room, user_id: str, since: int) -> bool:
        """Whether any receipt of a user in a room changed above a position of the log."""
        return (await self._rooms.get(room.room_nid)).has_moved(user_id, since)

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
            if isinstance(entry, ReceiptsChanged):
                self._publish(entry)
        while len(self._changed) > MAX_CHANGED:
            self._floor = max(self._floor, self._changed.popitem(last=False)[1])

    def _publish(self, entry: ReceiptsChanged) -> None:
        room, queued = entry.room, self._queued
        for receipt in entry.receipts:
            key = (room, receipt.user_id, receipt.receipt_type, receipt.thread_id)
            if queued.get(key) == receipt:
                del queued[key]
        self._changed[room] = entry.position
        self._changed.move_to_end(room)
        self._rooms.publish(room, entry)

    async def _load(self, room: int) -> RoomReceipts:
        return (await self._load_all([room]))[room]

    async def _load_all(self, rooms: Sequence[int]) -> dict[int, RoomReceipts]:
        rows = await self._db.run(receipts_in, rooms)
        names = await self._names.names({row.member for row in rows})
        entries = {room: RoomReceipts() for room in rooms}
        for row in rows:
            receipt = Receipt(
                names[row.member],
                row.receipt_type,
                row.thread_id or None,
                row.event_id,
                row.event_position,
                row.ts,
            )
            entries[row.room].put(row.position, receipt)
        return entries


def check_thread_id(value: object) -> str | None:
    """The thread that a client named, `None` for `UNSET`; raises `InvalidParam`."""
    if value is msgspec.UNSET:
        return None
    if not is_thread_id(value):
        raise InvalidParam(f"thread_id must be {MAIN!r} or the id of an event")
    return value


def is_thread_id(value: object) -> TypeGuard[str]:
    """Whether a value names a thread, which need not exist."""
    return isinstance(value, str) and (value == MAIN or is_valid_event_id(value))


def _row(room: int, member: int, receipt: Receipt, position: int) -> Row:
    return UPSERT_RECEIPT.row(
        room,
        member,
        receipt.receipt_type,
        receipt.thread_id or "",
        receipt.event_id,
        receipt.event_position,
        receipt.ts,
        position,
    )
