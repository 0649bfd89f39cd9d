"""Whose an OpenID token is: asked by services that a user wants to be known to.

Whoever has the token may ask, without a signature: the services are no homeservers.

Spec: https://spec.matrix.org/v1.19/server-server-api/#openid
"""

import msgspec

from homeserver.accounts.sessions.openid_tokens import OpenIdTokens
from homeserver.protocol.errors import MissingToken
from homeserver.web.routes import Auth, Route


class TokenQuery(msgspec.Struct):
    """The token that a user has handed over."""

    access_token: str | None = None


class OpenIdUserInfoApi:
    def __init__(self, tokens: OpenIdTokens) -> None:
        self._tokens = tokens

    def routes(self) -> list[Route]:
        path = "/_matrix/federation/v1/openid/userinfo"
        return [Route("GET", path, self.exchange_open_id_token, Auth.NONE)]

    async def exchange_open_id_token(self, query: TokenQuery) -> dict[str, str]:
        """The user behind a token."""
        if not query.access_token:
            raise MissingToken("The query parameter access_token is missing")
        return {"sub": await self._tokens.get_user(query.access_token)}
