"""The feed: the items of all application services, from the entries of the log.

Each entry is examined once for all of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from twisted.logger import Logger

from appservices.transactions.alias_interest import AliasInterest
from appservices.transactions.items import (
    DeviceListItem,
    EventItem,
    ItemGroup,
    KeyCountsItem,
    PresenceItem,
    ReceiptsItem,
    ToDeviceItem,
    TransactionItem,
    TypingItem,
)
from appservices.transactions.room_interest import RoomInterest
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
from homeserver.rooms.room.room_receipts import PRIVATE, ReceiptsChanged

log = Logger()

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
        self._with_ephemeral: Sequence[Appservice] = ()
        self._with_encryption: Sequence[Appservice] = ()
        appservices.subscribe(self._registrations_changed)
        self._registrations_changed()
        self._latest: Sequence[Any] = ()
        self._items: Items = {}
        self._of_kind: dict[type, Callable[[Any], None]] = {
            OutOfRoomMembershipChanged: self._membership,
            TypingChanged: self._typing,
            ReceiptsChanged: self._receipts,
            PresenceChanged: self._presence,
            ToDeviceMessagesSent: self._to_device,
            DeviceListChanged: self._device_list,
            ClaimableKeysChanged: self._key_counts,
        }

    def _registrations_changed(self) -> None:
        self._with_ephemeral = with_ephemeral(self._appservices.all)
        self._with_encryption = with_encryption(self._appservices.all)

    def apply(self, entries: Sequence[Any]) -> None:
        """Find the items of a batch (called by the log)."""
        self._aliases.apply(entries)
        self._latest, self._items = entries, {}
        if not self._appservices.all:
            return
        for entry in entries:
            try:
                if isinstance(entry, StateChanged):
                    self._change(entry)
                elif (find := self._of_kind.get(type(entry))) is not None:
                    find(entry)
            except Exception:
                # One entry must not keep all later ones of the batch from every reader.
                log.failure("application services do not receive {entry}", entry=entry)

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
        room = self._rooms.loaded(entry.room) if self._with_ephemeral else None
        if room is not None:
            item = TypingItem(entry.position, entry.room, room.room_id)
            self._add(with_ephemeral(self._interest.of_room(room)), item)

    def _receipts(self, entry: ReceiptsChanged) -> None:
        room = self._rooms.loaded(entry.room) if self._with_ephemeral else None
        if room is None:
            return
        public = [receipt for receipt in entry.receipts if receipt.receipt_type != PRIVATE]
        if public:
            services = with_ephemeral(self._interest.of_room(room))
            self._add(services, ReceiptsItem(entry.position, room.room_id, public))
        for receipt in entry.receipts:
            if receipt.receipt_type == PRIVATE:
                services = with_ephemeral(self._appservices.covering_user(receipt.user_id))
                self._add(services, ReceiptsItem(entry.position, room.room_id, [receipt]))

    def _presence(self, entry: PresenceChanged) -> None:
        for service, is_certain in self._sharing(entry, self._with_ephemeral):
            self._add([service], PresenceItem(entry.position, entry, is_certain=is_certain))

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
        for service, is_certain in self._sharing(entry, self._with_encryption):
            item = DeviceListItem(entry.position, entry.user_id, entry.rooms, is_certain=is_certain)
            self._add([service], item)

    def _key_counts(self, entry: ClaimableKeysChanged) -> None:
        services = with_encryption(self._appservices.covering_user(entry.user_id))
        self._add(services, KeyCountsItem(entry.position, entry.user_id, entry.device_ids))

    def _sharing(
        self, entry: PresenceChanged | DeviceListChanged, services: Sequence[Appservice]
    ) -> Iterator[tuple[Appservice, bool]]:
        """Those of some application services that may share a room with a user.

        With each, whether that is certain: the interest in some rooms may not be in memory, and is
        not computed for all rooms of a user at once.
        """
        if not services:
            return
        certain = {*self._appservices.covering_user(entry.user_id)}
        is_complete = True
        for room_nid in entry.rooms:
            interested = self._interest.known(room_nid)
            if interested is None:
                is_complete = False
            else:
                certain.update(interested)
        for service in services:
            if service in certain:
                yield service, True
            elif not is_complete:
                yield service, False


def joins(event: Event) -> bool:
    """Whether an event makes a user join a room."""
    return is_member_event(event) and event.content.get("membership") == "join"


def with_ephemeral(services: Iterable[Appservice]) -> list[Appservice]:
    """Those application services that receive typing, receipts and presence."""
    return [each for each in services if each.receives_ephemeral]


def with_encryption(services: Iterable[Appservice]) -> list[Appservice]:
    """Those application services that receive device lists and key counts."""
    return [each for each in services if each.receives_encryption]
