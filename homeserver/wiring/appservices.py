"""Application services: what they are asked, their transactions, and their APIs."""

from functools import partial
from typing import TYPE_CHECKING, Any

from appservices.api.as_sync import AsSyncApi
from appservices.api.ping import PingApi
from appservices.api.third_party_networks import ThirdPartyNetworksApi
from appservices.queries.bounded_requests import BoundedRequests
from appservices.queries.ping import AppservicePing
from appservices.queries.third_party_networks import ThirdPartyNetworks
from appservices.queries.unknown_names import (
    MAX_UNKNOWN,
    UnknownNames,
    aliases,
    limits_of_strangers,
    users,
)
from appservices.requests.appservice_client import AppserviceClient
from appservices.transactions.alias_interest import AliasInterest
from appservices.transactions.appservice_transactions import AppserviceTransactions
from appservices.transactions.delivery import DeliveryContext
from appservices.transactions.feed import Feed
from appservices.transactions.http_transport import HttpTransport
from appservices.transactions.item_source import AppserviceItemSource
from appservices.transactions.room_interest import PastInterest, RoomInterest
from appservices.transactions.transaction_body import TransactionBodies
from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.appservices.provisioning import Provisioning
from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.rooms.history_import import HistoryImportApi
from homeserver.concurrency.late_imports import Late
from homeserver.concurrency.lru_cache import LruCache
from homeserver.config.settings import Settings
from homeserver.rooms.ephemeral.receipts import Receipts
from homeserver.rooms.ephemeral.typing import TypingUsers
from homeserver.rooms.history_import.history_import import FindImporter, HistoryImport
from homeserver.rooms.history_import.import_request import Importer
from homeserver.storage.accounts.users import find_user
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.room_aliases import find_alias
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.log import Log
from homeserver.web.rate_limits import RateLimits
from homeserver.web.routes import Route
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.encryption import Encryption
from homeserver.wiring.room_core import RoomCore

if TYPE_CHECKING:
    from homeserver.web.websocket import SocketFactory

SOCKET_MODULE = "appservices.transactions.socket"


class AppserviceQueries:
    """The objects that ask; they need nothing of rooms, and rooms and accounts need their ports."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        appservices: Appservices,
        rate_limits: RateLimits,
    ) -> None:
        self.client = client = AppserviceClient(reactor, settings.outbound_http)
        self._requests = requests = BoundedRequests(reactor)
        self.ping = AppservicePing(reactor, client, requests)

        async def user_exists(user_id: str) -> bool:
            return await db.run(find_user, user_id) is not None

        async def alias_exists(alias: str) -> bool:
            return await db.run(find_alias, alias) is not None

        no_users: LruCache[str, float] = LruCache("appservice_unknown_users", MAX_UNKNOWN)
        no_aliases: LruCache[str, float] = LruCache("appservice_unknown_aliases", MAX_UNKNOWN)
        kinds = (
            (users(appservices, user_exists), no_users),
            (aliases(appservices, alias_exists), no_aliases),
        )
        strangers = limits_of_strangers(reactor)
        names = [
            UnknownNames(reactor, client, requests, rate_limits, strangers, kind, unknown)
            for kind, unknown in kinds
        ]
        for each in names:
            appservices.subscribe(each.forget)
        self.provisioning = Provisioning(names[0].provision, names[1].provision)

        self._networks = ThirdPartyNetworksApi(
            ThirdPartyNetworks(reactor, client, requests, rate_limits, appservices)
        )

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return self._networks.routes()

    def end_waits(self) -> None:
        """End waiting for application services: the server is about to stop."""
        self._requests.end_waits()

    async def stop(self) -> None:
        """Close the connections to application services."""
        await self.client.stop()


class AppserviceServices:
    """The objects that need those of rooms."""

    def __init__(
        self,
        reactor: Any,
        queries: AppserviceQueries,
        db: Database,
        log: Log,
        readers: DurableReaders,
        account_core: AccountCore,
        room_core: RoomCore,
        encryption: Encryption,
        typing: TypingUsers,
        receipts: Receipts,
    ) -> None:
        appservices = account_core.appservices
        registry, user_rooms = room_core.registry, room_core.user_rooms
        aliases = AliasInterest(db, appservices)
        interest = RoomInterest(appservices, registry, aliases.of_room)
        feed = Feed(appservices, registry, interest, aliases)
        log.subscribe(feed.apply)
        context = DeliveryContext(
            appservices,
            TransactionBodies(db, reactor, typing, encryption.counts),
            encryption.inboxes,
            HttpTransport(queries.client),
            log,
            db,
            reactor,
        )
        past_interest = PastInterest(appservices, registry, aliases.of_room)
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
                past_interest,
            ),
            aliases,
            interest,
        )
        self.history_import = HistoryImport(db, registry, receipts, _importers(appservices))
        sockets = Late(reactor, SOCKET_MODULE, partial(_socket_factory, reactor))
        self.as_sync = AsSyncApi(sockets, appservices, self.transactions, reactor)
        self._apis: list[Any] = [
            self.as_sync,
            PingApi(appservices, queries.ping, self.transactions.wake),
            HistoryImportApi(self.history_import),
        ]

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return [route for api in self._apis for route in api.routes()]

    def end_waits(self) -> None:
        """Close all sockets: the server is stopping."""
        self.as_sync.end_waits()

    async def stop(self) -> None:
        """Stop sending transactions."""
        await self.transactions.stop()


def _importers(appservices: Appservices) -> FindImporter:
    """Finds the application service of a request among those that may import history."""

    def find(caller: Requester) -> Importer | None:
        services = (each for each in appservices.all if each.may_import_history)
        return next((each for each in services if each.id == caller.appservice), None)

    return find


def _socket_factory(reactor: Any) -> "SocketFactory":
    from appservices.transactions.socket import socket_factory

    return socket_factory(reactor)
