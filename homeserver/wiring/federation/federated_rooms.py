"""Rooms over federation: sending to other servers, and responding to their requests."""

from typing import Any

from federation.api.auth_chains import AuthChains
from federation.api.events import EventsApi
from federation.api.hierarchy import HierarchyApi
from federation.api.invites import InvitesApi
from federation.api.membership import MembershipApi
from federation.api.third_party_invites import ThirdPartyInvitesApi
from federation.api.transactions import TransactionsApi
from federation.api.user_devices import UserDevicesApi
from federation.api.user_keys import UserKeysApi
from federation.receiving.device_list_edus import DeviceListEdus
from federation.receiving.edus import EduDispatcher, EduReceiver
from federation.receiving.pdu_queue import IncomingQueue
from federation.receiving.presence_edus import PresenceEdus
from federation.receiving.receipt_edus import ReceiptEdus
from federation.receiving.rescinded_invites import RescindedInvites
from federation.receiving.room_access import RoomAccess
from federation.receiving.to_device_edus import ToDeviceEdus
from federation.receiving.typing_edus import TypingEdus
from federation.sending.device_list_items import DeviceListItems
from federation.sending.device_list_outbox import DeviceListOutbox
from federation.sending.device_list_recipients import DeviceListRecipients
from federation.sending.room_servers import RoomServers
from federation.sending.sender import OutgoingSource, Sender
from federation.sending.server_joins import ServerJoins
from federation.sending.to_device_outbox import ToDeviceOutbox
from homeserver.protocol.event_types import (
    DEVICE_LIST_UPDATE,
    DIRECT_TO_DEVICE,
    PRESENCE,
    RECEIPT,
    SIGNING_KEY_UPDATE,
    TYPING,
    UNSTABLE_SIGNING_KEY_UPDATE,
)
from homeserver.rooms.history.event_ancestors import EventAncestors
from homeserver.rooms.membership.restricted_joins import RestrictedJoins
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.log import Log
from homeserver.web.rate_limits import RateLimits
from homeserver.web.routes import Route
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.encryption import Encryption
from homeserver.wiring.federation.federation import Federation
from homeserver.wiring.federation.remote import Remote
from homeserver.wiring.room_core import RoomCore
from homeserver.wiring.rooms import RoomServices
from homeserver.wiring.sync import Sync


class FederatedRooms:
    """All objects of the area."""

    def __init__(
        self,
        reactor: Any,
        db: Database,
        log: Log,
        readers: DurableReaders,
        federation: Federation,
        account_core: AccountCore,
        room_core: RoomCore,
        remote: Remote,
        rooms: RoomServices,
        encryption: Encryption,
        sync: Sync,
        rate_limits: RateLimits,
    ) -> None:
        self._remote = remote
        self._list_resync = encryption.remote.resync
        federation.destinations.subscribe(self._list_resync.server_reachable)
        registry = room_core.registry
        access = RoomAccess(registry)
        servers = RoomServers(registry, db)
        log.subscribe(servers.apply)
        self._sender = _sender(reactor, db, log, federation, room_core, encryption)
        outgoing = OutgoingSource(db, registry)
        readers.add("federation_sender", outgoing, self._sender.send, self._sender.first_unsent)
        joins = ServerJoins(db, registry, room_core.sticky_events)
        readers.add("server_joins", joins, self._sender.send_sticky, self._sender.first_unsent)
        recipients = DeviceListRecipients(
            db, log, registry, room_core.user_rooms, servers, self._sender
        )
        readers.add("device_lists", DeviceListItems(db, registry), recipients.handle)
        self._typing = TypingEdus(registry, access, sync.typing, self._sender, reactor)
        receipts = ReceiptEdus(registry, access, sync.receipts, self._sender)
        self._presence = PresenceEdus(
            registry, sync.tracker, sync.remote_presence, self._sender, servers, reactor
        )
        to_device = self._to_device = ToDeviceEdus(
            db, log, encryption.to_device, room_core.local_server, rate_limits
        )
        edus = EduDispatcher(
            {
                TYPING: self._typing.receive,
                RECEIPT: receipts.receive,
                PRESENCE: self._presence.receive,
                **_device_list_edus(encryption),
            },
            {DIRECT_TO_DEVICE: to_device.receive},
        )
        self._apis = [
            TransactionsApi(
                reactor,
                _pdu_queue(reactor, federation, room_core, remote, access, rate_limits),
                edus,
            ),
            *_apis(db, account_core, room_core, remote, rooms, access),
            UserDevicesApi(db, encryption.directory, room_core.local_server),
            UserKeysApi(db, encryption.directory, encryption.queries, room_core.local_server),
        ]
        for reader in (self._sender, self._typing, receipts, self._presence, remote.resync):
            log.subscribe(reader.apply)

    async def start(self) -> None:
        """Send other servers the events that they lack, and continue fetching full states."""
        await self._sender.start()
        self._presence.start()
        await self._remote.resync.start()
        await self._list_resync.start()

    @property
    def destinations_with_edus(self) -> int:
        """The number of servers for which EDUs wait that must not be lost."""
        return self._sender.destinations_with_edus

    def end_waits(self) -> None:
        """End joins in progress: the server is about to stop."""
        self._remote.end_waits()

    async def stop(self) -> None:
        """Stop sending to other servers, and fetching from them."""
        self._list_resync.stop()
        await self._remote.resync.stop()
        self._typing.stop()
        self._presence.stop()
        await self._sender.stop()

    def routes(self) -> list[Route]:
        """The area's part of the Server-Server API."""
        return [route for api in self._apis for route in api.routes()]


def _pdu_queue(
    reactor: Any,
    federation: Federation,
    room_core: RoomCore,
    remote: Remote,
    access: RoomAccess,
    limits: RateLimits,
) -> IncomingQueue:
    """The queue of received PDUs."""
    registry, checks = room_core.registry, remote.pdu_checks
    rescinded_invites = RescindedInvites(
        reactor, federation.client, checks, registry, room_core.out_of_room
    )
    return IncomingQueue(
        registry, access, checks, remote.event_fetcher, rescinded_invites, remote.joining, limits
    )


def _sender(
    reactor: Any,
    db: Database,
    log: Log,
    federation: Federation,
    room_core: RoomCore,
    encryption: Encryption,
) -> Sender:
    """The sender of PDUs and EDUs, with the outboxes of those that must not be lost."""
    return Sender(
        federation.client,
        federation.destinations,
        federation.permitted,
        room_core.registry,
        room_core.sticky_events,
        log,
        db,
        reactor,
        [ToDeviceOutbox(db, log), DeviceListOutbox(db, log, encryption.directory)],
    )


def _device_list_edus(encryption: Encryption) -> dict[str, EduReceiver]:
    """The functions for EDUs about device lists of remote users, by type."""
    edus = DeviceListEdus(encryption.remote.updates)
    return {
        DEVICE_LIST_UPDATE: edus.receive_device,
        SIGNING_KEY_UPDATE: edus.receive_signing_key,
        UNSTABLE_SIGNING_KEY_UPDATE: edus.receive_signing_key,
    }


def _apis(
    db: Database,
    account_core: AccountCore,
    room_core: RoomCore,
    remote: Remote,
    rooms: RoomServices,
    access: RoomAccess,
) -> list[Any]:
    """The APIs by which other servers read and change rooms, except transactions."""
    registry, checks = room_core.registry, remote.pdu_checks
    chains = AuthChains(room_core.names, registry)
    return [
        MembershipApi(
            registry,
            room_core.receiver,
            checks,
            access,
            chains,
            RestrictedJoins(registry),
            rooms.memberships,
        ),
        InvitesApi(registry, checks, access, room_core.out_of_room, account_core.invite_permission),
        EventsApi(
            registry,
            access,
            chains,
            EventAncestors(registry),
            room_core.visibility,
            rooms.timestamps,
        ),
        HierarchyApi(rooms.space_rooms, access),
        ThirdPartyInvitesApi(db, room_core.local_server, access, rooms.third_party_invites),
    ]
