"""Application services: their transactions, and their part of the client API."""

from typing import Any

from appservices.api.as_sync import AsSyncApi
from appservices.requests.appservice_client import AppserviceClient
from appservices.transactions.alias_interest import AliasInterest
from appservices.transactions.appservice_transactions import AppserviceTransactions
from appservices.transactions.delivery import DeliveryContext
from appservices.transactions.feed import Feed
from appservices.transactions.http_transport import HttpTransport
from appservices.transactions.item_source import AppserviceItemSource
from appservices.transactions.room_interest import PastInterest, RoomInterest
from appservices.transactions.socket import socket_factory
from appservices.transactions.transaction_body import TransactionBodies
from homeserver.config.settings import Settings
from homeserver.rooms.ephemeral.typing import TypingUsers
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.log import Log
from homeserver.web.routes import Route
from homeserver.wiring.account_core import AccountCore
from homeserver.wiring.encryption import Encryption
from homeserver.wiring.room_core import RoomCore


class AppserviceServices:
    """All objects of the area."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        log: Log,
        readers: DurableReaders,
        account_core: AccountCore,
        room_core: RoomCore,
        encryption: Encryption,
        typing: TypingUsers,
    ) -> None:
        appservices = account_core.appservices
        registry, user_rooms = room_core.registry, room_core.user_rooms
        self._client = AppserviceClient(reactor, settings.outbound_http)
        aliases = AliasInterest(db, appservices)
        interest = RoomInterest(appservices, registry, aliases.of_room)
        feed = Feed(appservices, registry, interest, aliases)
        log.subscribe(feed.apply)
        context = DeliveryContext(
            appservices,
            TransactionBodies(db, reactor, typing, encryption.counts),
            encryption.inboxes,
            HttpTransport(self._client),
            log,
            db,
            reactor,
        )
        self.transactions = AppserviceTransactions(
            context,
            readers,
            lambda appservice_id: AppserviceItemSource(
                appservice_id,
                appservices,
                db,
                registry,
                user_rooms,
                feed,
                PastInterest(appservices, registry, aliases.of_room),
            ),
            aliases,
        )
        self._as_sync = AsSyncApi(socket_factory(reactor), appservices, self.transactions, reactor)

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return self._as_sync.routes()

    def end_waits(self) -> None:
        """Close all sockets: the server is stopping."""
        self._as_sync.end_waits()

    async def stop(self) -> None:
        """Stop sending, and close all connections."""
        await self.transactions.stop()
        await self._client.stop()
