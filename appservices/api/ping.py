"""Pings that application services ask for, to test the way back.

Spec: https://spec.matrix.org/v1.19/application-service-api/#pinging-1
"""

from collections.abc import Callable
from typing import Annotated

import msgspec

from appservices.queries.ping import AppservicePing
from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import Forbidden
from homeserver.web.routes import Route

PATH = "/_matrix/client/v1/appservice/{appservice_id}/ping"


class PingRequest(msgspec.Struct):
    """The id that the application service recognises its ping by."""

    transaction_id: Annotated[str, msgspec.Meta(max_length=255)] | None = None


class PingApi:
    """`on_success(appservice_id)` is called after each successful ping."""

    def __init__(
        self, appservices: Appservices, ping: AppservicePing, on_success: Callable[[str], None]
    ) -> None:
        self._on_success = on_success
        self._appservices = appservices
        self._ping = ping

    def routes(self) -> list[Route]:
        return [Route("POST", PATH, self.ping_appservice)]

    async def ping_appservice(
        self, caller: Requester, appservice_id: str, body: PingRequest
    ) -> dict[str, int]:
        """Ping the application service that requests it."""
        appservice = self._appservices.by_id(appservice_id)
        if appservice is None or caller.appservice != appservice.id:
            raise Forbidden("The token is not that of the application service")
        duration_ms = await self._ping.ping(appservice, body.transaction_id)
        self._on_success(appservice_id)
        return {"duration_ms": duration_ms}
