"""The registration of clients.

Spec: https://spec.matrix.org/v1.19/client-server-api/#dynamic-client-registration-flow
Source: https://datatracker.ietf.org/doc/html/rfc7591
"""

from http import HTTPStatus
from typing import Any

import msgspec

from homeserver.accounts.oauth.clients import OAuthClients
from homeserver.protocol.errors import MatrixError
from homeserver.protocol.oauth.errors import INVALID_CLIENT_METADATA, OAuthError
from homeserver.protocol.oauth.server_metadata import REGISTER
from homeserver.web.bodies import decode_body
from homeserver.web.routes import Auth, Response, Route

_DECODER: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


class ClientRegistrationApi:
    def __init__(self, clients: OAuthClients) -> None:
        self._clients = clients

    def routes(self) -> list[Route]:
        return [Route("POST", REGISTER, self.register_client, auth=Auth.NONE, limit="oauth")]

    async def register_client(self, body: bytes) -> Response:
        """Register a client; the response is what was registered, with its id."""
        try:
            given = decode_body(_DECODER, body)
        except MatrixError:
            raise OAuthError(INVALID_CLIENT_METADATA, "the body is not a JSON object") from None
        client = await self._clients.register(given)
        registered = msgspec.to_builtins(client.metadata)
        return Response(HTTPStatus.CREATED, {"client_id": client.client_id, **registered})
