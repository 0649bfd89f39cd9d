"""The feed: the items of all application services, from the entries of the log.

Each entry is examined once for all of them.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from appservices.transactions.alias_interest import AliasInterest
from appservices.transactions.items import (
    DeviceListItem,
    EventItem,
    ItemGroup,
    KeyCountsItem,
    PresenceItem,
    ReceiptItem,
    ToDeviceItem,
    TransactionItem,
    TypingItem,
)
from appservices.transactions.room_interest import NOBODY, RoomInterest
from homeserver.accounts.appservices.appservices import Appservices
from homeserver.encryption.changes import (
    ClaimableKeysChanged,
    DeviceListChanged,
    ToDeviceMessagesSent,
)
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.events import Event
from homeserver.rooms.ephemeral.typing import TypingChanged
from homeserver.rooms.room.changes import EventAppended, OutOfRoomMembershipChanged, StateChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room_receipts import PRIVATE, ReceiptChanged

Items = dict[str, list[ItemGroup]]  # by id of the application service


class Feed:
    """Finds the items of each batch. Subscribe `apply` to the log, before the readers."""

    def __init__(
        self,
        appservices: Appservices,
        rooms: RoomRegistry,
        interest: RoomInterest,
        aliases: AliasInterest,
    ) -> None:
        self._appservices = appservices
        self._rooms = rooms
        self._interest = interest
        self._aliases = aliases
        self._latest: Sequence[Any] = ()
        self._items: Items = {}
        self._of_kind: dict[type, Callable[[Any], None]] = {
            OutOfRoomMembershipChanged: self._membership,
            TypingChanged: self._typing,
            ReceiptChanged: self._receipt,
            PresenceChanged: self._presence,
            ToDeviceMessagesSent: self._to_device,
            DeviceListChanged: self._device_list,
            ClaimableKeysChanged: self._key_counts,
        }

    def apply(self, entries: Sequence[Any]) -> None:
        """Find the items of a batch (called by the log)."""
        self._aliases.apply(entries)
        self._latest, self._items = entries, {}
        if not self._appservices.all:
            return
        for entry in entries:
            if isinstance(entry, StateChanged):
                self._change(entry)
            elif (find := self._of_kind.get(type(entry))) is not None:
                find(entry)

    def items_of(self, appservice_id: str, entries: Sequence[Any]) -> Sequence[ItemGroup]:
        """The items of one application service in the batch that was published last."""
        assert entries is self._latest, "the feed is subscribed before the readers"
        return self._items.get(appservice_id, ())

    def _add(self, services: Iterable[Appservice], item: TransactionItem) -> None:
        for service in services:
            groups = self._items.setdefault(service.id, [])
            if groups and groups[-1].position == item.position:
                groups[-1].items.append(item)
            else:
                groups.append(ItemGroup(item.position, [item]))

    def _change(self, entry: StateChanged) -> None:
        in_room = self._interest.follow(entry)
        if isinstance(entry, EventAppended):
            stored = entry.stored
            interested = self._interest.of_event(stored.event, in_room)
            if interested:
                self._add(interested, EventItem(entry.position, stored))
                if joins(stored.event):
                    user_id = stored.event.state_key or ""
                    item = DeviceListItem(entry.position, user_id, (), is_certain=True)
                    self._add(with_encryption(interested), item)

    def _membership(self, entry: OutOfRoomMembershipChanged) -> None:
        services = self._appservices.covering_user(entry.user_id)
        self._add(services, EventItem(entry.position, entry.stored))

    def _typing(self, entry: TypingChanged) -> None:
        room = self._rooms.loaded(entry.room)
        if room is not None:
            item = TypingItem(entry.position, entry.room, room.room_id)
            self._add(with_ephemeral(self._interest.of_room(room)), item)

    def _receipt(self, entry: ReceiptChanged) -> None:
        room = self._rooms.loaded(entry.room)
        if room is None:
            return
        services: Collection[Appservice] = self._interest.of_room(room)
        if entry.receipt_type == PRIVATE:
            services = self._appservices.covering_user(entry.user_id)
        self._add(with_ephemeral(services), ReceiptItem(entry.position, room.room_id, entry))

    def _presence(self, entry: PresenceChanged) -> None:
        certain = with_ephemeral(self._sharing(entry.user_id, entry.rooms))
        self._add(certain, PresenceItem(entry.position, entry, is_certain=True))
        if not all(map(self._rooms.loaded, entry.rooms)):
            others = [each for each in with_ephemeral(self._appservices.all) if each not in certain]
            self._add(others, PresenceItem(entry.position, entry, is_certain=False))

    def _to_device(self, entry: ToDeviceMessagesSent) -> None:
        services = [
            each
            for each in self._appservices.covering_user(entry.user_id)
            if each.receives_encryption or each.receives_ephemeral
        ]
        if services:
            for device_id, message in entry.messages:
                self._add(services, ToDeviceItem(entry.position, entry.user_id, device_id, message))

    def _device_list(self, entry: DeviceListChanged) -> None:
        certain = set(with_encryption(self._sharing(entry.user_id, entry.rooms)))
        for service in with_encryption(self._appservices.all):
            is_certain = service in certain
            if is_certain or not all(map(self._rooms.loaded, entry.rooms)):
                item = DeviceListItem(
                    entry.position, entry.user_id, entry.rooms, is_certain=is_certain
                )
                self._add([service], item)

    def _key_counts(self, entry: ClaimableKeysChanged) -> None:
        services = with_encryption(self._appservices.covering_user(entry.user_id))
        self._add(services, KeyCountsItem(entry.position, entry.user_id, entry.device_ids))

    def _sharing(self, user_id: str, room_nids: Iterable[int]) -> Collection[Appservice]:
        """The application services to whom a user belongs, or who share a room in memory."""
        services = dict.fromkeys(self._appservices.covering_user(user_id))
        for room_nid in room_nids:
            room = self._rooms.loaded(room_nid)
            if room is not None:
                services |= dict.fromkeys(self._interest.of_room(room))
        return services or NOBODY


def joins(event: Event) -> bool:
    """Whether an event makes a user join a room."""
    return is_member_event(event) and event.content.get("membership") == "join"


def with_ephemeral(services: Iterable[Appservice]) -> list[Appservice]:
    """Those application services that receive typing, receipts and presence."""
    return [each for each in services if each.receives_ephemeral]


def with_encryption(services: Iterable[Appservice]) -> list[Appservice]:
    """Those application services that receive device lists and key counts."""
    return [each for each in services if each.receives_encryption]
