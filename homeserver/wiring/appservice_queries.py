"""What this server asks application services: for users and aliases, of networks, and pings."""

from typing import Any

from appservices.api.ping import PingApi
from appservices.api.third_party_networks import ThirdPartyNetworksApi
from appservices.queries.bounded_requests import BoundedRequests
from appservices.queries.ping import AppservicePing
from appservices.queries.third_party_networks import ThirdPartyNetworks
from appservices.queries.unknown_names import UnknownNames, aliases, users
from appservices.requests.appservice_client import AppserviceClient
from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.appservices.provisioning import Provisioning
from homeserver.config.settings import Settings
from homeserver.storage.accounts.users import find_user
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.room_aliases import find_alias
from homeserver.web.rate_limits import RateLimits
from homeserver.web.routes import Route


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
        self._client = client = AppserviceClient(reactor, settings.outbound_http)
        self._requests = requests = BoundedRequests(reactor)

        async def user_exists(user_id: str) -> bool:
            return await db.run(find_user, user_id) is not None

        async def alias_exists(alias: str) -> bool:
            return await db.run(find_alias, alias) is not None

        kinds = (users(appservices, user_exists), aliases(appservices, alias_exists))
        names = [UnknownNames(reactor, client, requests, rate_limits, kind) for kind in kinds]
        for each in names:
            appservices.subscribe(each.forget)
        self.provisioning = Provisioning(names[0].provision, names[1].provision)

        self._apis: list[Any] = [
            PingApi(appservices, AppservicePing(reactor, client, requests)),
            ThirdPartyNetworksApi(
                ThirdPartyNetworks(reactor, client, requests, rate_limits, appservices)
            ),
        ]

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return [route for api in self._apis for route in api.routes()]

    def end_waits(self) -> None:
        """End waiting for application services: the server is about to stop."""
        self._requests.end_waits()

    async def stop(self) -> None:
        """Close the connections to application services."""
        await self._client.stop()
