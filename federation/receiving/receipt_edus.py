"""Read receipts, sent to the other servers of a room, and received from them.

Private receipts are not sent.

Spec: https://spec.matrix.org/v1.19/server-server-api/#receipts
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any

import msgspec

from federation.receiving.room_access import RoomAccess
from federation.sending.sender import Sender
from homeserver.protocol.event_types import RECEIPT
from homeserver.protocol.identifiers import is_valid_event_id
from homeserver.rooms.ephemeral.receipts import READ, Receipts, is_thread_id
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_receipts import Receipt, ReceiptsChanged

MAX_RECEIPTS = 1_000  # of an EDU that is received
MAX_SENT = 100  # receipts of an EDU that is sent


class _SentReceipt(msgspec.Struct, frozen=True):
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
        parsed = islice(_parse(content), MAX_RECEIPTS)
        for room_id, sent in groupby(parsed, key=lambda each: each.room_id):
            room = await self._rooms.find(room_id)
            if room is None:
                continue
            own = [each for each in sent if self._access.speaks_for(origin, each.user_id, room)]
            if own and await self._access.is_allowed(origin, room):
                await self._move(room, own)

    async def _move(self, room: Room, sent: Sequence[_SentReceipt]) -> None:
        positions: dict[str, int | None] = {}
        for event_id in {each.event_id for each in sent}:
            stored = await self._rooms.find_event(room, event_id)
            positions[event_id] = None if stored is None else stored.position
        receipts = [
            Receipt(
                each.user_id, READ, each.thread_id, each.event_id, positions[each.event_id], each.ts
            )
            for each in sent
        ]
        # Those that are refused are dropped.
        await self._receipts.move(room, receipts)

    def apply(self, entries: Sequence[Any]) -> None:
        """Send the receipts of local users (called by the log)."""
        for entry in entries:
            if isinstance(entry, ReceiptsChanged):
                is_local = self._rooms.local_server.is_local
                receipts = [
                    receipt
                    for receipt in entry.receipts
                    if receipt.receipt_type == READ and is_local(receipt.user_id)
                ]
                if receipts:
                    self._publish(entry, receipts)

    def _publish(self, entry: ReceiptsChanged, receipts: Sequence[Receipt]) -> None:
        room = self._rooms.loaded(entry.room)
        if room is None:
            return
        own = self._rooms.local_server.server_name
        others = [server for server in room.servers if server != own]
        if not others:
            return
        for number, users in enumerate(_by_user(receipts)):
            key: tuple[object, ...] = entry.room, entry.position, number
            if len(receipts) == 1:
                key = entry.room, receipts[0].user_id, receipts[0].thread_id
            self._sender.send_edu(others, RECEIPT, {room.room_id: {READ: users}}, key)


def _by_user(receipts: Iterable[Receipt]) -> Iterator[dict[str, Any]]:
    """Receipts by user, of which each has one place in an EDU, for as many EDUs as needed."""
    counts: Counter[str] = Counter()
    layers: list[dict[str, Any]] = []  # with the first receipt of each user, the second, and so on
    for receipt in receipts:
        user_id = receipt.user_id
        if counts[user_id] == len(layers):
            layers.append({})
        data: dict[str, Any] = {"ts": receipt.ts}
        if receipt.thread_id is not None:
            data["thread_id"] = receipt.thread_id
        layers[counts[user_id]][user_id] = {"event_ids": [receipt.event_id], "data": data}
        counts[user_id] += 1
    for layer in layers:
        users = iter(layer.items())
        while some := dict(islice(users, MAX_SENT)):
            yield some


def _parse(content: Mapping[str, Any]) -> Iterator[_SentReceipt]:
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
                and is_valid_event_id(ids[0])
                and isinstance(ts, int)
                and 0 <= ts < 1 << 53
                and (thread_id is None or is_thread_id(thread_id))
            ):
                yield _SentReceipt(room_id, user_id, ids[0], thread_id, ts)
