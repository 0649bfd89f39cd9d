"""Federation: requests to other servers, authentication of theirs, and keys."""

from collections.abc import Sequence
from typing import Any

from federation.api.authentication import ServerAuthentication
from federation.api.keys import KeysApi
from federation.api.public_rooms import PublicRoomsApi
from federation.api.queries import QueriesApi
from federation.keys.key_fetching import KeyFetcher
from federation.keys.key_store import KeyStore
from federation.keys.keyring import Keyring
from federation.keys.notary import Notary
from federation.keys.own_keys import OwnKeys
from federation.transport.client import FederationClient, Signer
from federation.transport.connections import Connections
from federation.transport.destination_health import DestinationHealth
from federation.transport.discovery import Discovery
from federation.transport.permitted_servers import PermittedServers
from federation.transport.service_records import ServiceRecords
from federation.transport.well_known import WellKnownDelegations
from homeserver.accounts.user_data.profiles import Profiles
from homeserver.config.settings import OutboundHttpSettings, Settings
from homeserver.outbound.client_tls import ClientTls
from homeserver.outbound.http_client import OutboundClient
from homeserver.outbound.networks import Network, open_network
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.rooms.discovery.aliases import Aliases
from homeserver.rooms.discovery.directory import RoomDirectory
from homeserver.storage.database.database import Database
from homeserver.web.routes import Route


class Federation:
    """All objects of the area. Raises `CertificateError`."""

    def __init__(
        self, reactor: Any, settings: Settings, keys: Sequence[SigningKey], db: Database
    ) -> None:
        rules, server_name = settings.federation, settings.server_name
        tls = ClientTls(verify=rules.verify_certificates, ca_file=rules.ca_file)
        network = open_network(
            reactor, "federation", allow_private_addresses=rules.allow_private_addresses
        )
        self.web = web_client(reactor, settings, tls, network)
        self._connections = Connections(reactor, tls, network)
        self.discovery = Discovery(WellKnownDelegations(reactor, self.web), ServiceRecords(reactor))
        self.permitted = PermittedServers(rules.allow, rules.deny)
        self.destinations = DestinationHealth(db, reactor)
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
        fetcher = self._fetcher = KeyFetcher(reactor, self.client, store, rules.trusted_key_servers)
        self.keyring = Keyring(reactor, self._own_keys, store, fetcher)
        self.authentication = ServerAuthentication(
            server_name, self.keyring, self.permitted, self.destinations
        )
        self._notary = Notary(reactor, self._own_keys, store, fetcher)
        self._settings = settings

    async def start(self) -> None:
        """Load the recorded health of other servers."""
        await self.destinations.load()

    def end_waits(self) -> None:
        """End waiting for responses of other servers: this one is about to stop."""
        self.client.end_waits()

    async def stop(self) -> None:
        """Close the connections to other servers, and store their health."""
        await self._connections.stop()
        await self.web.stop()
        await self.destinations.stop()

    def routes(self, profiles: Profiles, aliases: Aliases, directory: RoomDirectory) -> list[Route]:
        """The APIs for which the other server need not be in a room."""
        settings = self._settings
        is_shown = settings.room_directory.over_federation
        apis: list[Any] = [
            KeysApi(self._own_keys, self._notary),
            QueriesApi(settings.server_name, profiles, aliases),
            PublicRoomsApi(directory, is_shown=is_shown),
        ]
        return [route for api in apis for route in api.routes()]


def web_client(
    reactor: Any, settings: Settings, tls: ClientTls, network: Network
) -> OutboundClient:
    """The client for `.well-known` files, which obeys the settings for other servers."""
    rules = settings.federation
    outbound = OutboundHttpSettings(
        verify_certificates=rules.verify_certificates,
        allow_private_addresses=rules.allow_private_addresses,
    )
    return OutboundClient(reactor, outbound, tls, network)
