"""The token endpoint: grants are exchanged for tokens, and tokens refreshed and revoked.

A client that is refused ends its session, whatever the reason, as the specification says. So too
many requests at once are not an error of the client here: it has to try again later.

Spec: https://spec.matrix.org/v1.19/client-server-api/#grant-types
"""

from collections.abc import Callable
from math import ceil
from typing import Any

from homeserver.accounts.oauth.authorization_codes import AuthorizationCodes
from homeserver.accounts.oauth.clients import OAuthClients, RegisteredClient
from homeserver.accounts.oauth.device_codes import DeviceGrants
from homeserver.accounts.oauth.sessions import GrantedTokens, OAuthSessions
from homeserver.client_api.oauth.parameters import body_parameters, required_parameter
from homeserver.protocol.errors import LimitExceeded
from homeserver.protocol.oauth.authorization_requests import Parameters
from homeserver.protocol.oauth.client_metadata import (
    AUTHORIZATION_CODE,
    DEVICE_CODE,
    REFRESH_TOKEN,
)
from homeserver.protocol.oauth.errors import (
    TEMPORARILY_UNAVAILABLE,
    UNSUPPORTED_GRANT_TYPE,
    OAuthError,
)
from homeserver.protocol.oauth.server_metadata import REVOKE, TOKEN
from homeserver.web.addresses import network_of
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route


class TooManyTokenRequests(OAuthError):
    """The client may repeat its request after some time."""

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__(TEMPORARILY_UNAVAILABLE, "there are too many requests; try again later")
        self._retry_after = ceil(retry_after_ms / 1000)

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self._retry_after)}


class TokenApi:
    """`check_limit(address)` counts a request; it raises `LimitExceeded`."""

    def __init__(
        self,
        clients: OAuthClients,
        codes: AuthorizationCodes,
        device_grants: DeviceGrants,
        sessions: OAuthSessions,
        check_limit: Callable[[str], None],
    ) -> None:
        self._clients = clients
        self._codes = codes
        self._device_grants = device_grants
        self._sessions = sessions
        self._check_limit = check_limit

    def routes(self) -> list[Route]:
        return [
            Route("POST", TOKEN, self.issue_tokens, auth=Auth.NONE),
            Route("POST", REVOKE, self.revoke_token, auth=Auth.NONE),
        ]

    async def issue_tokens(self, request: Request, body: bytes) -> Response:
        """Exchange a grant for tokens."""
        self._count(request)
        parameters = body_parameters(body)
        grant_type = required_parameter(parameters, "grant_type")
        if grant_type not in (AUTHORIZATION_CODE, DEVICE_CODE, REFRESH_TOKEN):
            raise OAuthError(UNSUPPORTED_GRANT_TYPE, "the server does not know this grant type")
        client = await self._clients.get(required_parameter(parameters, "client_id"))
        granted = await self._grant(grant_type, client, parameters)
        # Required by RFC 6749, section 5.1, for caches that do not know `Cache-Control`.
        return Response(200, _token_body(granted), {"Pragma": "no-cache"})

    async def revoke_token(self, request: Request, body: bytes) -> None:
        """End the session of a token, whose client need not be the one that asks.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#token-revocation
        """
        self._count(request)
        await self._sessions.revoke(required_parameter(body_parameters(body), "token"))

    async def _grant(
        self, grant_type: str, client: RegisteredClient, parameters: Parameters
    ) -> GrantedTokens:
        if grant_type == REFRESH_TOKEN:
            refresh_token = required_parameter(parameters, "refresh_token")
            return await self._sessions.refresh(client.client_id, refresh_token)
        if grant_type == DEVICE_CODE:
            device_code = required_parameter(parameters, "device_code")
            return await self._device_grants.poll(client, device_code)
        return await self._codes.redeem(
            client,
            required_parameter(parameters, "code"),
            required_parameter(parameters, "redirect_uri"),
            required_parameter(parameters, "code_verifier"),
        )

    def _count(self, request: Request) -> None:
        try:
            self._check_limit(network_of(request.address))
        except LimitExceeded as error:
            raise TooManyTokenRequests(error.retry_after_ms) from None


def _token_body(granted: GrantedTokens) -> dict[str, Any]:
    tokens = granted.tokens
    assert tokens.expires_in_ms is not None, "tokens of this API expire"
    return {
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in_ms // 1000,
        "refresh_token": tokens.refresh_token,
        "scope": granted.scope,
    }
