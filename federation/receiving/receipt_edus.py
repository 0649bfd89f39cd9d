"""Read receipts, sent to the other servers of a room, and received from them.

Private receipts are not sent.

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
    """Receipts over federation. Subscribe `apply` to the log after the rooms."""

    def __init__(
        self, rooms: RoomRegistry, access: RoomAccess, receipts: Receipts, sender: Sender
    ) -> None:
        self._rooms = rooms
        self._access = access
        self._receipts = receipts
        self._sender = sender

    async def receive(self, origin: str, content: Mapping[str, Any]) -> None:
        """Receive the receipts of another server's users."""
        for place, receipt in enumerate(_parse(content)):
            if place >= MAX_RECEIPTS:
                return
            room = await self._rooms.find(receipt.room_id)
            if (
                room is not None
                and self._access.speaks_for(origin, receipt.user_id, room)
                and await self._access.is_allowed(origin, room)
            ):
                await self._move(room, receipt)

    async def _move(self, room: Room, receipt: _SentReceipts) -> None:
        stored = await self._rooms.find_event(room, receipt.event_id)
        try:
            await self._receipts.move(
                room,
                receipt.user_id,
                READ,
                receipt.event_id,
                None if stored is None else stored.position,
                thread_id=None if receipt.thread_id is None else check_thread_id(receipt.thread_id),
                ts=receipt.ts,
            )
        except (InvalidParam, UserLimitExceeded):
            return

    def apply(self, entries: Sequence[Any]) -> None:
        """Send the receipts of local users (called by the log)."""
        for entry in entries:
            if (
                isinstance(entry, ReceiptChanged)
                and entry.receipt_type == READ
                and self._rooms.local_server.is_local(entry.user_id)
            ):
                self._publish(entry)

    def _publish(self, entry: ReceiptChanged) -> None:
        room = self._rooms.loaded(entry.room)
        if room is None:
            return
        own = self._rooms.local_server.server_name
        others = [server for server in room.servers if server != own]
        if not others:
            return
        data: dict[str, Any] = {"ts": entry.ts}
        if entry.thread_id is not None:
            data["thread_id"] = entry.thread_id
        receipt = {entry.user_id: {"event_ids": [entry.event_id], "data": data}}
        key = (entry.room, entry.user_id, entry.thread_id)
        self._sender.send_edu(others, RECEIPT, {room.room_id: {READ: receipt}}, key)


def _parse(content: Mapping[str, Any]) -> Iterator[_SentReceipts]:
    """The receipts of an EDU; malformed ones are left out."""
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
