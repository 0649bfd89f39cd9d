"""Discovery and capabilities over HTTP, and registration and log-in for tools and old clients."""

import hmac
from hashlib import sha1

import treq

from homeserver.protocol.proposals.unstable_names import flags_of
from tests.accounts.api import BASEURL, DELEGATED_TO, V3, ApiTestCase
from tests.accounts.support import ALICE, PASSWORD, SERVER


class ServerOverHttpTests(ApiTestCase):
    async def test_versions(self) -> None:
        """The first thing that every client asks."""
        response = await self.ok("GET", "/_matrix/client/versions")

        self.assertIn("v1.19", response["versions"])
        self.assertIn("r0.6.1", response["versions"])
        features = response["unstable_features"]
        self.assertEqual(features, {"org.example": True, **flags_of()})

    async def test_discovery(self) -> None:
        """Clients and servers find the server, and its support contacts, by a user id."""
        client = await self.ok("GET", "/.well-known/matrix/client")
        server = await self.ok("GET", "/.well-known/matrix/server")
        support = await self.ok("GET", "/.well-known/matrix/support")

        self.assertEqual(client, {"m.homeserver": {"base_url": BASEURL}})
        self.assertEqual(server, {"m.server": DELEGATED_TO})
        self.assertEqual(
            support, {"contacts": [{"role": "m.role.admin", "email_address": "a@example.org"}]}
        )

    async def test_registration_by_shared_secret(self) -> None:
        """The tools of administrators work as they are."""
        path = "/_synapse/admin/v1/register"
        nonce = (await self.ok("GET", path))["nonce"]
        text = f"{nonce}\0Admin\0{PASSWORD}\0admin\0bot"
        body = {
            "nonce": nonce,
            "username": "Admin",
            "displayname": "The admin",
            "password": PASSWORD,
            "admin": True,
            "user_type": "bot",
            "mac": hmac.new(b"hush, hush", text.encode(), sha1).hexdigest(),
        }

        response = await self.ok("POST", path, body)

        self.assertEqual(response["user_id"], "@admin:example.org")
        self.assertEqual(response["home_server"], SERVER)
        self.assertTrue((await self.authenticate(response["access_token"])).is_admin)
        name = await self.ok("GET", f"{V3}/profile/@admin:example.org/displayname")
        self.assertEqual(name, {"displayname": "The admin"})

    async def test_a_stage_on_a_web_page(self) -> None:
        """A client that knows no stage at all can still register its user."""
        _, needed = await self.request("POST", f"{V3}/register", {"username": "alice"})
        session = needed["session"]
        page = f"{self.url}{V3}/auth/m.login.dummy/fallback/web?session={session}"

        form = await treq.get(page, pool=self.pool)
        self.assertIn("<form", await form.text())
        done = await treq.post(page, data={}, pool=self.pool)
        self.assertIn("onAuthDone", await done.text())

        response = await self.ok("POST", f"{V3}/register", {"auth": {"session": session}})
        self.assertEqual(response["user_id"], ALICE)

    async def test_pages_of_unknown_sessions_are_not_found(self) -> None:
        """A stale link gets an error page."""
        _, needed = await self.request("POST", f"{V3}/register", {})
        for path in (
            f"{V3}/auth/org.magic/fallback/web?session={needed['session']}",
            f"{V3}/auth/m.login.dummy/fallback/web?session=stale",
        ):
            self.assertEqual(await self.refusal("GET", path), (404, "M_NOT_FOUND"))
