"""The HTTP client for requests to application services.

Their addresses are chosen by the operator, so private ones are allowed. Each request has a bounded
time, and each response a bounded size; redirects are not followed.

Spec: https://spec.matrix.org/v1.19/application-service-api/#authorisation
"""

from typing import Any

from homeserver.config.settings import OutboundHttpSettings
from homeserver.outbound.http_client import OutboundClient, OutboundError, OutboundResponse
from homeserver.outbound.networks import open_network
from homeserver.protocol.appservices.appservice import Appservice

APP = "/_matrix/app/v1"
MAX_RESPONSE = 65_536  # bytes
TIMEOUT_SECONDS = 60.0
UNKNOWN_ENDPOINT = frozenset({404, 405, 501})  # no other failure can be cured by another path


class NotReachable(OutboundError):
    """The application service has no URL."""


class AppserviceClient:
    """Sends requests. `await stop()` when it is no longer needed."""

    def __init__(self, reactor: Any, settings: OutboundHttpSettings) -> None:
        network = open_network(reactor, "application services", allow_private_addresses=True)
        self._http = OutboundClient(reactor, settings, network=network)

    async def stop(self) -> None:
        """Close all connections."""
        await self._http.stop()

    async def request(
        self,
        appservice: Appservice,
        method: str,
        path: str,
        *,
        legacy_path: str | None = None,
        body: bytes | None = None,
        timeout: float = TIMEOUT_SECONDS,
        max_body: int = MAX_RESPONSE,
    ) -> OutboundResponse:
        """The response of an application service, whatever its status.

        If it does not know the endpoint, the request is repeated at `legacy_path`, if there is one;
        the first response counts if that is unknown, too. Raises `OutboundError`.
        """
        if appservice.url is None:
            raise NotReachable(f"the application service {appservice.id} has no url")
        headers = {"Authorization": f"Bearer {appservice.hs_token}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        response = None
        for each in (path, legacy_path):
            if each is None:
                continue
            latest = await self._http.request(
                method,
                appservice.url + each,
                headers=headers,
                body=body,
                timeout=timeout,
                max_body=max_body,
                follow_redirects=False,
            )
            if latest.status not in UNKNOWN_ENDPOINT:
                return latest
            response = response or latest
        assert response is not None, "there is a path"
        return response


def is_success(response: OutboundResponse) -> bool:
    """Whether a response has a status of success."""
    return 200 <= response.status < 300
