"""Pings: whether an application service can be reached, and knows the token of this server.

Spec: https://spec.matrix.org/v1.19/application-service-api/#pinging
"""

import msgspec

from appservices.queries.bounded_requests import BoundedRequests, NoAnswer
from appservices.requests.appservice_client import (
    APP,
    AppserviceClient,
    NotReachable,
    is_success,
)
from homeserver.concurrency.clock import Clock
from homeserver.outbound.http_client import OutboundError, OutboundResponse, OutboundTimeout
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.appservices.errors import (
    BadStatus,
    ConnectionFailed,
    ConnectionTimeout,
    UrlNotSet,
)

PATH = f"{APP}/ping"
TIMEOUT_SECONDS = 15.0
MAX_SHOWN = 4_096  # characters of a body


class AppservicePing:
    """Pings application services."""

    def __init__(self, clock: Clock, client: AppserviceClient, requests: BoundedRequests) -> None:
        self._clock = clock
        self._client = client
        self._requests = requests

    async def ping(self, appservice: Appservice, transaction_id: str | None = None) -> int:
        """The duration of a ping in milliseconds.

        Raises `UrlNotSet`, `BadStatus`, `ConnectionTimeout` and `ConnectionFailed`.
        """
        body = {} if transaction_id is None else {"transaction_id": transaction_id}
        sending = self._client.request(
            appservice, "POST", PATH, body=msgspec.json.encode(body), timeout=TIMEOUT_SECONDS
        )
        began = self._clock.seconds()
        try:
            response = await self._requests.run(
                appservice, appservice.sender, sending, TIMEOUT_SECONDS
            )
        except NotReachable as error:
            raise UrlNotSet("The registration of the application service has no url") from error
        except (OutboundTimeout, NoAnswer) as error:
            raise ConnectionTimeout(f"There was no answer in time: {error}") from error
        except OutboundError as error:
            raise ConnectionFailed(f"There was no usable answer: {error}") from error
        duration = self._clock.seconds() - began
        if not is_success(response):
            raise BadStatus(
                f"The status of the answer was {response.status}",
                status=response.status,
                body=_shown(response),
            )
        return round(duration * 1000)


def _shown(response: OutboundResponse) -> str:
    return response.body.decode("utf-8", "replace")[:MAX_SHOWN]
