"""Discovery, and the registration of clients."""

import psycopg

from homeserver.storage.oauth.cleanup import UNUSED_CLIENT_MS, delete_expired_oauth_rows
from tests.api.oauth.support import BASE, OAUTH, WEB_CLIENT, OAuthTestCase
from tests.support.refused import Refused
from tests.support.server import ServerTestCase

METADATA = "/_matrix/client/v1/auth_metadata"
NAMES = {
    name: f"{BASE}{OAUTH}/{path}"
    for name, path in (
        ("authorization_endpoint", "authorize"),
        ("token_endpoint", "token"),
        ("registration_endpoint", "register"),
        ("revocation_endpoint", "revoke"),
        ("device_authorization_endpoint", "device"),
    )
}


class MetadataTests(OAuthTestCase):
    async def test_clients_discover_the_api(self) -> None:
        """A client needs nothing but the address of the server."""
        metadata = await self.anybody.request("GET", METADATA)

        self.assertEqual(metadata["issuer"], f"{BASE}/")
        self.assertEqual({name: metadata[name] for name in NAMES}, NAMES)
        self.assertEqual(metadata["response_types_supported"], ["code"])
        self.assertEqual(metadata["response_modes_supported"], ["query", "fragment"])
        self.assertEqual(metadata["code_challenge_methods_supported"], ["S256"])
        self.assertEqual(metadata["prompt_values_supported"], ["create"])
        self.assertEqual(metadata["account_management_uri"], f"{BASE}/_matrix/account")
        unstable = "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata"
        self.assertEqual(await self.anybody.request("GET", unstable), metadata)
        page = await self.browser.get(METADATA)
        self.assertEqual(page.headers["cache-control"], "public, max-age=3600")


class DisabledTests(ServerTestCase):
    async def test_nothing_is_served_where_it_is_off(self) -> None:
        """A client sees that it has to use the legacy API."""
        for method, path in (("GET", METADATA), ("POST", f"{OAUTH}/token")):
            await self.assert_refused("M_UNRECOGNIZED", self.anybody.request(method, path), 404)


class RegistrationTests(OAuthTestCase):
    async def test_a_client_registers(self) -> None:
        """The response has the id, and what the server has kept."""
        answer = await self.register_client(client_name="New", contacts=["me@example.com"])

        client_id = answer.pop("client_id")
        self.assertEqual(answer, WEB_CLIENT | {"client_name": "New"})
        self.assertNotEqual(client_id, self.client_id)
        again = await self.register_client(client_name="New")
        self.assertEqual(again["client_id"], client_id)

    async def test_invalid_metadata_are_refused(self) -> None:
        """With the errors of RFC 7591."""
        for changes, error in (
            ({"client_uri": "http://example.com"}, "invalid_client_metadata"),
            ({"redirect_uris": ["https://evil.test/"]}, "invalid_redirect_uri"),
        ):
            await self.assert_error(error, self.register_client(**changes))
        for body in (b"", b"x", b"[]", b"\xff", b"null", b'{"client_uri": "\xff"}'):
            attempt = self.anybody.request("POST", f"{OAUTH}/register", body)
            await self.assert_error("invalid_client_metadata", attempt)

    async def test_clients_without_a_session_are_deleted_after_a_day(self) -> None:
        """Registrations do not pile up, and no session loses its client."""
        phone = await self.log_in_client()
        unused = (await self.register_client(client_name="Unused"))["client_id"]
        with psycopg.connect(self.dsn) as connection:
            connection.execute("UPDATE oauth_clients SET registered_ms = 0")
        new = (await self.register_client(client_name="New"))["client_id"]

        db = self.server.parts.db
        with psycopg.connect(self.dsn) as connection:
            row = connection.execute("SELECT max(registered_ms) FROM oauth_clients").fetchone()
        assert row is not None
        await db.run(delete_expired_oauth_rows, row[0] + UNUSED_CLIENT_MS)

        with psycopg.connect(self.dsn) as connection:
            rows = connection.execute("SELECT client_id FROM oauth_clients").fetchall()
        self.assertEqual({client_id for (client_id,) in rows}, {self.client_id, new})
        self.assertNotIn(unused, rows)
        await self.refresh(phone.refresh_token)


class LimitTests(OAuthTestCase):
    settings = {  # noqa: RUF012  # never changed
        **OAuthTestCase.settings,
        "rate_limits": {
            "oauth": {"per_second": 0.001, "burst": 2},
            "lookup": {"per_second": 0.001, "burst": 30},
        },
    }

    async def test_registrations_are_limited(self) -> None:
        """A stranger cannot fill the database."""
        await self.register_client(client_name="1")

        await self.assert_refused("M_LIMIT_EXCEEDED", self.register_client(client_name="2"), 429)

    async def test_too_many_refreshes_are_no_error_of_the_client(self) -> None:
        """A client that is refused with 4xx would delete all that it has."""
        for _ in range(40):
            try:
                await self.refresh("unknown")
            except Refused as refused:
                last = refused

        self.assertEqual((last.status, last.body["error"]), (503, "temporarily_unavailable"))
