"""OpenID tokens, as the services see them that users hand them to."""

from typing import Any

from tests.support.actors import Actor
from tests.support.server import ServerTestCase


class OpenIdTests(ServerTestCase):
    settings = {  # noqa: RUF012  # never changed
        "listeners": [{"port": 0, "bind": "127.0.0.1", "resources": ["client", "federation"]}]
    }

    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")

    async def test_a_service_learns_the_user_of_a_token(self) -> None:
        """A widget knows its user, without a password."""
        token = await self.token_of(self.alice)

        answer = await self.user_info(access_token=token)

        self.assertEqual(answer, {"sub": self.alice.user_id})

    async def test_other_tokens_are_refused(self) -> None:
        """A user cannot pose as another one, and a client's access token does not work here."""
        await self.assert_refused("M_MISSING_TOKEN", self.user_info(), 401)
        await self.assert_refused("M_MISSING_TOKEN", self.user_info(access_token=""), 401)
        for unknown in ("made up", "an/invalid/token", self.alice.token):
            await self.assert_refused("M_UNKNOWN_TOKEN", self.user_info(access_token=unknown), 401)

    async def token_of(self, actor: Actor) -> str:
        """A new OpenID token."""
        answer = await actor.post(f"/user/{actor.user_id}/openid/request_token")
        token: str = answer["access_token"]
        return token

    async def user_info(self, **query: Any) -> Any:
        """The response to a service about a token."""
        path = "/_matrix/federation/v1/openid/userinfo"
        return await self.anybody.request("GET", path, query=query)
