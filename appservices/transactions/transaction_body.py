"""The body of a transaction, from its items.

Bridges look for some fields by the names of the proposals that brought them, so these have both
names.

Spec: https://spec.matrix.org/v1.19/application-service-api/#put_matrixappv1transactionstxnid and
MSC2409, MSC3202, MSC4203
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from appservices.transactions.items import (
    DeviceListItem,
    EventItem,
    KeyCountsItem,
    PresenceItem,
    ReceiptsItem,
    ToDeviceItem,
    TransactionItem,
    TypingItem,
)
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.concurrency.lru_cache import LruCache
from homeserver.encryption.key_counts import DeviceKeyCounts
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.event_types import RECEIPT, TYPING
from homeserver.rooms.ephemeral.typing import TypingUsers
from homeserver.rooms.room.room_receipts import Receipt
from homeserver.storage.appservices.backlog import shares_room
from homeserver.storage.database.database import Database

MAX_CACHED_USERS = 20_000
SHARING_SECONDS = 600.0  # a room that a user of it joins is in memory for a while

_encode = msgspec.json.Encoder().encode
Counts = dict[str, dict[str, Any]]  # by user id and device id


class TransactionBodies:
    """Builds the bodies of transactions."""

    def __init__(
        self, db: Database, clock: Clock, typing: TypingUsers, key_counts: DeviceKeyCounts
    ) -> None:
        self._db = db
        self._clock = clock
        self._typing = typing
        self._key_counts = key_counts
        self._sharing: LruCache[tuple[str, str], tuple[bool, float]] = LruCache(
            "appservice_presence_sharing", MAX_CACHED_USERS
        )

    async def build(self, appservice: Appservice, items: Sequence[TransactionItem]) -> bytes | None:
        """The JSON of a transaction; `None` if it would be empty."""
        now = now_ms(self._clock)
        events = [
            item.stored.client_json(now, room_id=True)
            for item in items
            if isinstance(item, EventItem)
        ]
        parts: list[tuple[Sequence[str], bytes]] = []
        ephemeral = self._ephemeral(items, now)
        ephemeral += await self._presence(appservice, items, now)
        if ephemeral:
            names = ("ephemeral", "de.sorunome.msc2409.ephemeral")
            parts.append((names, b"[%s]" % b",".join(ephemeral)))
        messages = [_addressed(item) for item in items if isinstance(item, ToDeviceItem)]
        if messages:
            names = ("to_device", "de.sorunome.msc2409.to_device")
            parts.append((names, b"[%s]" % b",".join(messages)))
        if appservice.receives_encryption:
            parts += await self._encryption(appservice, items)
        if not (events or parts):
            return None
        members = [b'"events":[%s]' % b",".join(events)]
        members += [b'"%s":%s' % (name.encode(), value) for names, value in parts for name in names]
        return b"{%s}" % b",".join(members)

    def _ephemeral(self, items: Sequence[TransactionItem], now: int) -> list[bytes]:
        """Typing and receipts; of what is repeated, the latest."""
        typing: dict[int, str] = {}
        receipts: dict[str, Any] = {}
        for item in items:
            match item:
                case TypingItem():
                    typing[item.room_nid] = item.room_id
                case ReceiptsItem():
                    _add_receipts(receipts.setdefault(item.room_id, {}), item.receipts)
        found = [
            _encode(
                {
                    "type": TYPING,
                    "room_id": room_id,
                    "content": {"user_ids": self._typing.list_since(room_nid, None) or []},
                }
            )
            for room_nid, room_id in typing.items()
        ]
        found += [
            _encode({"type": RECEIPT, "room_id": room_id, "content": content})
            for room_id, content in receipts.items()
        ]
        return found

    async def _presence(
        self, appservice: Appservice, items: Sequence[TransactionItem], now: int
    ) -> list[bytes]:
        """The latest presence of each user."""
        latest = {item.change.user_id: item for item in items if isinstance(item, PresenceItem)}
        return [
            bytes(item.change.event(now))
            for item in latest.values()
            if item.is_certain or await self._shares_room(appservice, item.change)
        ]

    async def _shares_room(self, appservice: Appservice, change: PresenceChanged) -> bool:
        """Whether an application service shares one of a user's rooms, as of lately."""
        key = appservice.id, change.user_id
        is_sharing, valid_until = self._sharing.get(key) or (False, 0.0)
        if self._clock.seconds() >= valid_until:
            is_sharing = await self._db.run(shares_room, appservice.id, list(change.rooms))
            valid_until = self._clock.seconds() + SHARING_SECONDS
            self._sharing.put(key, (is_sharing, valid_until))
        return is_sharing

    async def _encryption(
        self, appservice: Appservice, items: Sequence[TransactionItem]
    ) -> list[tuple[Sequence[str], bytes]]:
        parts: list[tuple[Sequence[str], bytes]] = []
        changed = await self._changed_lists(appservice, items)
        if changed:
            lists = {"changed": changed, "left": []}
            parts.append((_msc3202("device_lists"), _encode(lists)))
        one_time, fallback = await self._counts(items)
        if one_time:
            parts.append((_msc3202("device_one_time_keys_count"), _encode(one_time)))
            parts.append((_msc3202("device_unused_fallback_key_types"), _encode(fallback)))
        return parts

    async def _changed_lists(
        self, appservice: Appservice, items: Sequence[TransactionItem]
    ) -> Collection[str]:
        changed: dict[str, None] = {}
        for item in items:
            if isinstance(item, DeviceListItem) and item.user_id not in changed:
                is_shared = item.is_certain or appservice.covers_user(item.user_id)
                if is_shared or await self._db.run(shares_room, appservice.id, list(item.rooms)):
                    changed[item.user_id] = None
        return list(changed)

    async def _counts(self, items: Sequence[TransactionItem]) -> tuple[Counts, Counts]:
        """The one-time and fallback keys of the devices that are concerned."""
        devices: dict[tuple[str, str], None] = {}
        for item in items:
            if isinstance(item, KeyCountsItem):
                devices |= {(item.user_id, device_id): None for device_id in item.device_ids}
            elif isinstance(item, ToDeviceItem):
                devices[item.user_id, item.device_id] = None
        one_time: Counts = {}
        fallback: Counts = {}
        for user_id, device_id in devices:
            counts = await self._key_counts.of((user_id, device_id))
            one_time.setdefault(user_id, {})[device_id] = counts.one_time
            fallback.setdefault(user_id, {})[device_id] = counts.unused_fallback
        return one_time, fallback


def _add_receipts(content: dict[str, Any], receipts: Iterable[Receipt]) -> None:
    for receipt in receipts:
        shown: dict[str, Any] = {"ts": receipt.ts}
        if receipt.thread_id is not None:
            shown["thread_id"] = receipt.thread_id
        users = content.setdefault(receipt.event_id, {}).setdefault(receipt.receipt_type, {})
        users[receipt.user_id] = shown


def _addressed(item: ToDeviceItem) -> bytes:
    """The message with its recipient; it is an object that is not empty."""
    recipient = _encode({"to_user_id": item.user_id, "to_device_id": item.device_id})
    return recipient[:-1] + b"," + item.message[1:]


def _msc3202(name: str) -> tuple[str, str]:
    return name, f"org.matrix.msc3202.{name}"
