"""Federation: the way to other servers, the way in for them, and what users see of them."""

from collections.abc import Sequence
from typing import Any

from federation.auth_chains import AuthChains
from federation.authentication import ServerAuthentication
from federation.backfill import Backfill
from federation.client import FederationClient, Signer
from federation.connections import Connections
from federation.destinations import Destinations
from federation.discovery import Discovery
from federation.edus import Edus
from federation.events_api import EventsApi
from federation.handshakes import Handshakes
from federation.inbox import Inbox
from federation.invites_api import InvitesApi
from federation.key_fetching import KeyFetcher
from federation.key_store import KeyStore
from federation.keyring import Keyring
from federation.keys_api import KeysApi
from federation.membership_api import MembershipApi
from federation.missing_events import MissingEvents
from federation.notary import Notary
from federation.own_keys import OwnKeys
from federation.pdus import PduChecks
from federation.permitted_servers import PermittedServers
from federation.public_rooms import PublicRoomsApi
from federation.queries import QueriesApi
from federation.remote_queries import RemoteQueries
from federation.room_access import RoomAccess
from federation.rooms_abroad import RoomsAbroad
from federation.sender import Sender
from federation.service_records import ServiceRecords
from federation.transactions_api import TransactionsApi
from federation.well_known import Delegations
from homeserver.config.settings import OutboundHttp, Settings
from homeserver.protocol.signatures import SigningKey
from homeserver.rooms.past import Past
from homeserver.rooms.restricted_joins import RestrictedJoins
from homeserver.storage.database import Database
from homeserver.web.client_tls import ClientTls
from homeserver.web.outbound import OutboundClient
from homeserver.web.routes import Route
from homeserver.wiring.accounts import Accounts
from homeserver.wiring.rooms import Rooms


class Federation:
    """All objects of the area that others use. Raises `CertificateError`."""

    def __init__(
        self, reactor: Any, settings: Settings, keys: Sequence[SigningKey], db: Database
    ) -> None:
        rules, server_name = settings.federation, settings.server_name
        tls = ClientTls(verify=rules.verify_certificates, ca_file=rules.ca_file)
        self._web = web_client(reactor, settings, tls)
        self._connections = Connections(
            reactor, tls, allow_private_addresses=rules.allow_private_addresses
        )
        self.discovery = Discovery(Delegations(reactor, self._web), ServiceRecords(reactor))
        self.permitted = PermittedServers(rules.allow, rules.deny)
        self.destinations = Destinations(db, reactor)
        self.client = FederationClient(
            reactor,
            Signer(server_name, keys[0]),
            self.discovery,
            self._connections,
            self.permitted,
            self.destinations,
        )
        self._own_keys = OwnKeys(server_name, keys, rules.old_verify_keys, reactor)
        store = KeyStore(db)
        fetcher = KeyFetcher(reactor, self.client, store, rules.trusted_key_servers)
        self.keyring = Keyring(reactor, self._own_keys, store, fetcher)
        self.authentication = ServerAuthentication(
            server_name, self.keyring, self.permitted, self.destinations
        )
        self._notary = Notary(reactor, self._own_keys, store, fetcher)
        self._checks = PduChecks(self.keyring)
        self._settings = settings
        self._db = db
        self._reactor = reactor

    async def start(self) -> None:
        """Read what was known of other servers."""
        await self.destinations.load()

    async def start_sending(self) -> None:
        """Tell other servers what they do not know."""
        await self.sender.start()

    async def stop(self) -> None:
        """Close the connections to other servers, and write how they fared."""
        await self.sender.stop()
        await self._connections.stop()
        await self._web.stop()
        await self.destinations.stop()

    def serve_users(self, accounts: Accounts, rooms: Rooms) -> None:
        """Let users see what is on other servers, and be in rooms there."""
        registry, origin = rooms.registry, rooms.origin
        handshakes = Handshakes(self.client, origin, self._checks)
        rooms.memberships.abroad = RoomsAbroad(
            handshakes, rooms.entrance, rooms.distant, registry, origin
        )
        self._missing = MissingEvents(self.client, self._checks, rooms.receiving)
        rooms.history.backfill = Backfill(registry, self.client, self._checks, self._missing)
        self.sender = Sender(
            self.client, self.destinations, self.permitted, registry, self._db, self._reactor
        )
        registry.stores.log.subscribe(self.sender.apply)
        queries = RemoteQueries(self.client)
        accounts.profiles.find_remote = queries.find_profile
        rooms.aliases.find_remote = queries.find_alias
        rooms.directory.ask_remote = queries.find_rooms

    def routes(self, accounts: Accounts, rooms: Rooms) -> list[Route]:
        """The area's part of the Server-Server API."""
        settings = self._settings
        is_shown = settings.room_directory.over_federation
        registry, receiving = rooms.registry, rooms.receiving
        access, chains = RoomAccess(registry), AuthChains(registry)
        inbox = Inbox(
            registry, access, self._checks, self._missing, rooms.distant, rooms.user_rooms
        )
        apis: list[Any] = [
            KeysApi(self._own_keys, self._notary),
            QueriesApi(settings.server_name, accounts.profiles, rooms.aliases),
            PublicRoomsApi(rooms.directory, is_shown=is_shown),
            MembershipApi(
                registry, receiving, self._checks, access, chains, RestrictedJoins(registry)
            ),
            InvitesApi(registry, self._checks, rooms.distant, accounts.invite_permission),
            TransactionsApi(inbox, Edus({})),
            EventsApi(registry, access, chains, Past(registry), rooms.visibility),
        ]
        return [route for api in apis for route in api.routes()]


def web_client(reactor: Any, settings: Settings, tls: ClientTls) -> OutboundClient:
    """The client for `.well-known` files, which obeys the settings for other servers."""
    rules = settings.federation
    outbound = OutboundHttp(
        verify_certificates=rules.verify_certificates,
        allow_private_addresses=rules.allow_private_addresses,
    )
    return OutboundClient(reactor, outbound, tls)
