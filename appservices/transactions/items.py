"""The items of a transaction: what an application service receives, one thing each.

An item has the position of its log entry, and its approximate size in the transaction, in bytes.
Those of one entry are a group, which is never divided.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from homeserver.presence.presence_changed import PresenceChanged
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.room_receipts import Receipt

SMALL = 200  # bytes, roughly


class EventItem(msgspec.Struct, frozen=True):
    """An event of a room, or an invite to a room that this server is not in."""

    position: int
    stored: StoredEvent

    @property
    def size(self) -> int:
        return len(self.stored.event.json)


class TypingItem(msgspec.Struct, frozen=True):
    """The list of the users who are typing in a room has changed."""

    position: int
    room_nid: int
    room_id: str
    size: int = SMALL


class ReceiptsItem(msgspec.Struct, frozen=True):
    """Users have read a room up to some events."""

    position: int
    room_id: str
    receipts: Sequence[Receipt]

    @property
    def size(self) -> int:
        return SMALL * len(self.receipts)


class PresenceItem(msgspec.Struct, frozen=True):
    """The presence of a user changed.

    If `is_certain`, the application service shares a room with the user; otherwise that has to be
    looked up.
    """

    position: int
    change: PresenceChanged
    is_certain: bool
    size: int = SMALL


class ToDeviceItem(msgspec.Struct, frozen=True):
    """A message to a device of one of the application service's users: an event as JSON."""

    position: int
    user_id: str
    device_id: str
    message: bytes

    @property
    def size(self) -> int:
        return len(self.message)


class DeviceListItem(msgspec.Struct, frozen=True):
    """The devices of a user changed, who is joined to `rooms`, or who has just joined one.

    If `is_certain`, the application service follows the user; otherwise that has to be looked up.
    """

    position: int
    user_id: str
    rooms: tuple[int, ...]
    is_certain: bool
    size: int = SMALL


class KeyCountsItem(msgspec.Struct, frozen=True):
    """One-time keys or fallback keys of one of its users' devices were uploaded or claimed."""

    position: int
    user_id: str
    device_ids: tuple[str, ...]
    size: int = SMALL


TransactionItem = (
    EventItem
    | TypingItem
    | ReceiptsItem
    | PresenceItem
    | ToDeviceItem
    | DeviceListItem
    | KeyCountsItem
)


class ItemGroup(msgspec.Struct, frozen=True):
    """All items of one application service that come from one log entry."""

    position: int
    items: list[TransactionItem]


def grouped(items: Iterable[TransactionItem]) -> list[ItemGroup]:
    """Items by position, in its order."""
    in_order = sorted(items, key=lambda item: item.position)
    return [
        ItemGroup(position, list(group))
        for position, group in groupby(in_order, key=lambda item: item.position)
    ]
