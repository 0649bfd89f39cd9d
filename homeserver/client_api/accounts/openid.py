"""OpenID tokens over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#openid
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.openid_tokens import LIFETIME_SECONDS, OpenIdTokens
from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.accounts.own_data import check_own
from homeserver.web.routes import Route


class OpenIdRequest(msgspec.Struct):
    """An object without members, which a later version may have."""


class OpenIdApi:
    def __init__(self, tokens: OpenIdTokens, server_name: str) -> None:
        self._tokens = tokens
        self._server_name = server_name

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/user/{user_id}/openid/request_token"
        return [Route("POST", path, self.request_open_id_token, limit="settings")]

    async def request_open_id_token(
        self, caller: Requester, user_id: str, body: OpenIdRequest
    ) -> dict[str, Any]:
        """A token that proves the caller's identity to a third party."""
        check_own(caller, user_id)
        return {
            "access_token": await self._tokens.issue(user_id),
            "token_type": "Bearer",
            "matrix_server_name": self._server_name,
            "expires_in": LIFETIME_SECONDS,
        }
