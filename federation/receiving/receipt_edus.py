"""Read receipts: told to the other servers of a room, and taken from them.

Private receipts stay here.

Spec: https://spec.matrix.org/v1.19/server-server-api/#receipts
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from federation.receiving.room_access import RoomAccess
from federation.sending.sender import Sender
from homeserver.protocol.errors import InvalidParam, UserLimitExceeded
from homeserver.protocol.event_types import RECEIPT
from homeserver.rooms.ephemeral.receipts import READ, Receipts, check_thread_id
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_receipts import ReceiptChanged

MAX_RECEIPTS = 1_000  # of one EDU


@dataclass(frozen=True, slots=True)
class _SentReceipts:
    room_id: str
    user_id: str
    event_id: str
    thread_id: str | None
    ts: int


class ReceiptEdus:
    """Receipts over federation. `apply` is to be subscribed to the log, after the rooms."""

    def __init__(
        self, rooms: RoomRegistry, access: RoomAccess, receipts: Receipts, sender: Sender
    ) -> None:
        self._rooms = rooms
        self._access = access
        self._receipts = receipts
        self._sender = sender

    async def receive(self, origin: str, content: Mapping[str, Any]) -> None:
        """Users of another server have read on."""
        for place, told in enumerate(_parse(content)):
            if place >= MAX_RECEIPTS:
                return
            room = await self._rooms.find(told.room_id)
            if (
                room is not None
                and self._access.speaks_for(origin, told.user_id, room)
                and await self._access.is_allowed(origin, room)
            ):
                await self._move(room, told)

    async def _move(self, room: Room, told: _SentReceipts) -> None:
        stored = await self._rooms.find_event(room, told.event_id)
        try:
            await self._receipts.move(
                room,
                told.user_id,
                READ,
                told.event_id,
                None if stored is None else stored.position,
                thread_id=None if told.thread_id is None else check_thread_id(told.thread_id),
                ts=told.ts,
            )
        except (InvalidParam, UserLimitExceeded):
            return

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log: tell of our users."""
        for fact in facts:
            if (
                isinstance(fact, ReceiptChanged)
                and fact.receipt_type == READ
                and self._rooms.local_server.is_local(fact.user_id)
            ):
                self._tell(fact)

    def _tell(self, fact: ReceiptChanged) -> None:
        room = self._rooms.loaded(fact.room)
        if room is None:
            return
        own = self._rooms.local_server.server_name
        others = [server for server in room.servers if server != own]
        if not others:
            return
        data: dict[str, Any] = {"ts": fact.ts}
        if fact.thread_id is not None:
            data["thread_id"] = fact.thread_id
        receipt = {fact.user_id: {"event_ids": [fact.event_id], "data": data}}
        key = (fact.room, fact.user_id, fact.thread_id)
        self._sender.send_edu(others, RECEIPT, {room.room_id: {READ: receipt}}, key)


def _parse(content: Mapping[str, Any]) -> Iterator[_SentReceipts]:
    """The receipts of an EDU, those that are malformed left out."""
    for room_id, types in content.items():
        read = types.get(READ) if isinstance(types, Mapping) else None
        for user_id, receipt in (read if isinstance(read, Mapping) else {}).items():
            if not isinstance(receipt, Mapping):
                continue
            ids, data = receipt.get("event_ids"), receipt.get("data")
            if not isinstance(ids, list) or not ids or not isinstance(data, Mapping):
                continue
            ts, thread_id = data.get("ts"), data.get("thread_id")
            if (
                isinstance(ids[0], str)
                and isinstance(ts, int)
                and 0 <= ts < 1 << 53
                and isinstance(thread_id, str | None)
            ):
                yield _SentReceipts(room_id, user_id, ids[0], thread_id, ts)
