"""Transactions by HTTP.

Spec: https://spec.matrix.org/v1.19/application-service-api/#put_matrixappv1transactionstxnid
"""

from appservices.requests.appservice_client import APP, AppserviceClient, is_success
from appservices.transactions.delivery import AppserviceTransaction, NotDelivered
from homeserver.outbound.http_client import OutboundError, ResponseTooLarge
from homeserver.protocol.appservices.appservice import Appservice


class HttpTransport:
    """Sends transactions to the URLs of application services."""

    def __init__(self, client: AppserviceClient) -> None:
        self._client = client

    async def deliver(self, appservice: Appservice, transaction: AppserviceTransaction) -> None:
        """Send a transaction. Raises `NotDelivered`."""
        path = f"/transactions/{transaction.txn_id}"
        try:
            response = await self._client.request(
                appservice, "PUT", APP + path, legacy_path=path, body=transaction.body
            )
        except ResponseTooLarge as error:
            # Nobody needs the body: the status is the acknowledgement.
            if not 200 <= error.status < 300:
                raise NotDelivered(f"its response has status {error.status}") from error
        except OutboundError as error:
            raise NotDelivered(str(error)) from error
        else:
            if not is_success(response):
                raise NotDelivered(f"its response has status {response.status}")
