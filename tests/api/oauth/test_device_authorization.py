"""The device authorisation grant: a program without a browser is let in from another device."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg

from homeserver.protocol.oauth.client_metadata import DEVICE_CODE
from tests.api.account_pages.support import Page
from tests.api.oauth.support import API, BASE, OAUTH, OAuthTestCase

LINK = f"{OAUTH}/link"


class DeviceAuthorizationTests(OAuthTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.codes = await self.begin()

    async def begin(self, **changes: str) -> Any:
        """What a client gets that wants to be let in."""
        scope = f"{API} urn:matrix:client:device:TELEVISION"
        return await self.form(
            "device", **({"client_id": self.client_id, "scope": scope} | changes)
        )

    async def poll(self, **changes: str) -> Any:
        """The answer to the client when it asks for its tokens."""
        parameters = {
            "grant_type": DEVICE_CODE,
            "device_code": self.codes["device_code"],
            "client_id": self.client_id,
        }
        return await self.form("token", **(parameters | changes))

    def wait(self) -> None:
        """Let the time pass for which the client has to wait."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute("UPDATE oauth_device_codes SET polled_ms = polled_ms - 5000")

    async def link(self) -> Page:
        """The page with the address that the client shows."""
        path = self.codes["verification_uri_complete"].removeprefix(BASE)
        return await self.browser.get(path)

    async def test_a_client_is_let_in(self) -> None:
        """A user enters the code that the other device shows, and it works as the user."""
        self.assertEqual(self.codes["verification_uri"], BASE + LINK)
        self.assertEqual((self.codes["expires_in"], self.codes["interval"]), (900, 5))
        await self.assert_error("authorization_pending", self.poll())

        page = await self.browser.get(LINK)
        page = await self.browser.get(f"{LINK}?user_code={self.codes['user_code'].lower()}")
        self.assertIn("My App", page.heading)
        self.assertIn("TELEVISION", page.text)
        self.assertIn(self.codes["user_code"], page.text)
        self.assertIn("form-action 'self';", page.headers["content-security-policy"])
        done = await self.decide(page)
        self.assertEqual((done.status, done.heading), (200, "The other device is being signed in"))

        tokens = await self.poll()
        self.anybody.token = tokens["access_token"]
        who = await self.anybody.get("/account/whoami")
        self.assertEqual((who["user_id"], who["device_id"]), (self.alice.user_id, "TELEVISION"))
        await self.refresh(tokens["refresh_token"])
        await self.assert_error("invalid_grant", self.poll())

    async def test_a_user_can_refuse(self) -> None:
        """The client stops asking."""
        page = await self.link()

        await self.decide(page, "deny")

        await self.assert_error("access_denied", self.poll())
        again = await self.decide(page)
        self.assertIn("No client waits with this code", again.text)
        self.wait()
        await self.assert_error("access_denied", self.poll())

    async def test_a_client_that_asks_too_often_is_slowed_down(self) -> None:
        """The interval is a promise, not a wish."""
        await self.assert_error("authorization_pending", self.poll())
        await self.assert_error("slow_down", self.poll())
        self.wait()
        await self.assert_error("authorization_pending", self.poll())

    async def test_codes_expire(self) -> None:
        """A code that somebody photographed is of no use tomorrow."""
        page = await self.link()
        with psycopg.connect(self.dsn) as connection:
            connection.execute("UPDATE oauth_device_codes SET expires_ms = 1")

        await self.assert_error("expired_token", self.poll())
        self.assertIn("No client waits with this code", (await self.decide(page)).text)

    async def test_codes_belong_to_their_client(self) -> None:
        """Another client cannot fetch the tokens."""
        other = (await self.register_client(client_name="Other"))["client_id"]
        await self.decide(await self.link())

        await self.assert_error("invalid_grant", self.poll(client_id=other))
        await self.assert_error("invalid_grant", self.poll(device_code="unknown"))
        await self.poll()

    async def test_only_signed_in_users_try_codes(self) -> None:
        """A stranger cannot look for codes of others."""
        stranger = self.new_browser()
        page = await stranger.get(f"{LINK}?user_code={self.codes['user_code']}")
        parts = urlsplit(page.location or "")
        self.assertEqual(parts.path, "/_matrix/account/sign_in")
        target = parse_qs(parts.query)["target"][0]
        self.assertIn("My App", (await self.browser.get(target)).heading)

        wrong = await self.browser.get(f"{LINK}?user_code=BCDF-GHJK")
        self.assertIn("No client waits with this code", wrong.text)
        self.assertEqual((await self.browser.get(f"{LINK}?user_code=%00")).status, 400)

    async def test_another_site_cannot_decide(self) -> None:
        """An attacker with a code of their own does not get the account of a visitor."""
        for fields in ({}, {"form_token": "x"}):
            form = {**fields, "user_code": self.codes["user_code"], "decision": "allow"}
            self.assertEqual((await self.browser.post(LINK, form)).status, 403)

        await self.assert_error("authorization_pending", self.poll())

    async def test_clients_need_the_grant_and_a_scope(self) -> None:
        """The errors of the other grants."""
        grants = ["authorization_code", "refresh_token"]
        other = (await self.register_client(grant_types=grants))["client_id"]

        await self.assert_error("unauthorized_client", self.begin(client_id=other))
        await self.assert_error("unauthorized_client", self.poll(client_id=other))
        await self.assert_error("invalid_client", self.begin(client_id="x"), 401)
        await self.assert_error("invalid_scope", self.begin(scope=API))

    async def test_a_permission_ends_with_all_sessions(self) -> None:
        """A user who logs out everywhere takes back what no client has fetched."""
        await self.decide(await self.link())
        await self.alice.post("/logout/all")

        await self.assert_error("invalid_grant", self.poll())


class GuessingTests(OAuthTestCase):
    settings = {  # noqa: RUF012  # never changed
        **OAuthTestCase.settings,
        "rate_limits": {"login": {"per_second": 0.001, "burst": 5}},
    }

    async def test_guessing_is_limited(self) -> None:
        """Nobody finds the code of another user's device by trying."""
        pages = [await self.browser.get(f"{LINK}?user_code=BCDF-GHJK") for _ in range(6)]

        self.assertEqual([page.status for page in pages], [200] * 5 + [429])
