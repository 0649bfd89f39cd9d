"""Messages to devices over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
"""

from typing import Annotated

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.encryption.to_device import ToDevice
from homeserver.web.routes import Auth, Route

MAX_USERS = 10_000  # of one request


class SendToDevice(msgspec.Struct):
    """The content of each message, by user id and device id."""

    messages: Annotated[dict[str, dict[str, msgspec.Raw]], msgspec.Meta(max_length=MAX_USERS)]


class ToDeviceApi:
    def __init__(self, to_device: ToDevice) -> None:
        self._to_device = to_device

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/sendToDevice/{event_type}/{txn_id}"
        return [Route("PUT", path, self.send_to_device, auth=Auth.GUEST, limit="to_device")]

    async def send_to_device(
        self, caller: Requester, event_type: str, txn_id: str, body: SendToDevice
    ) -> None:
        """Send messages to devices."""
        await self._to_device.send(caller, event_type, txn_id, body.messages)
