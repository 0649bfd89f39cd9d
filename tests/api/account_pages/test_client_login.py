"""Clients of the legacy API that know of the OAuth 2.0 API send their users to the pages.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-aware-clients
"""

import re
from html import unescape
from typing import Any, ClassVar
from urllib.parse import urlencode

from tests.api.account_pages.support import Page, PagesTestCase

CLIENT = "https://client.example/cb?a=b"
REDIRECT = "/_matrix/client/v3/login/sso/redirect"


def address(client: str = CLIENT, **query: str) -> str:
    """The address that a client opens."""
    return f"{REDIRECT}?{urlencode({'redirectUrl': client, **query})}"


class ClientLoginTests(PagesTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")

    def token_in(self, page: Page, client: str = CLIENT) -> str:
        """The login token with which a page returns to the client."""
        self.assertEqual(page.status, 200)
        url = page.headers["refresh"].removeprefix("0; url=")
        self.assertIn(url, unescape(page.text))
        found = re.fullmatch(re.escape(client) + r"[?&]loginToken=([\w-]+)", url)
        assert found is not None, url
        return found[1]

    async def log_in_by(self, token: str) -> Any:
        """The session that a client gets for a login token."""
        return await self.anybody.post("/login", {"type": "m.login.token", "token": token})

    async def test_clients_are_told(self) -> None:
        """They then offer nothing else."""
        flows = {flow["type"]: flow for flow in (await self.anybody.get("/login"))["flows"]}

        self.assertIs(flows["m.login.sso"]["oauth_aware_preferred"], True)
        self.assertIn("m.login.password", flows)

    async def test_user_signs_in_and_the_client_logs_in(self) -> None:
        """With the password on the page of the server, and one more click."""
        page = await self.browser.follow(await self.browser.get(address()))
        page = await self.browser.submit(page, user="alice", password="the password of alice")
        self.assertEqual(page.heading, "Log in to https://client.example?")
        self.assertIn(self.alice.user_id, page.text)

        page = await self.browser.submit(page)

        token = self.token_in(page)
        self.assertEqual((await self.log_in_by(token))["user_id"], self.alice.user_id)
        await self.assert_refused("M_FORBIDDEN", self.log_in_by(token))

    async def test_user_who_is_signed_in_is_asked(self) -> None:
        """No link makes a client of theirs without a click, and no other site makes the click."""
        await self.sign_in("alice", self.browser)

        page = await self.browser.follow(await self.browser.get(address()))
        forged = await self.browser.post(page.path, {"form_token": "guess"})
        other = await self.browser.get(page.path)

        self.assertNotIn("loginToken", page.text + other.text)
        self.assertEqual((forged.status, "loginToken" in forged.text), (403, False))
        self.token_in(await self.browser.submit(page))

    async def test_user_who_wants_an_account_gets_the_page_for_it(self) -> None:
        """By the parameter of the specification, or the one from before it."""
        for name in ("action", "org.matrix.msc3824.action"):
            page = await self.new_browser().get(address(**{name: "register"}))
            self.assertEqual(page.status, 302)
            self.assertIn("/_matrix/account/sign_up?", page.location or "")

    async def test_other_addresses_are_refused(self) -> None:
        """Nothing runs in the origin of the server."""
        page = (await self.browser.follow(await self.browser.get(address()))).path
        for client in ("javascript:alert(1)", "data:text/html,x", "/relative", "https:///x", ""):
            query = urlencode({"redirectUrl": client})
            for path in (address(client), f"/_matrix/account/client_login?{query}"):
                refused = await self.browser.get(path)
                self.assertEqual(refused.status, 400, path)
        self.assertIn("/_matrix/account/", page)

    async def test_session_that_ended_in_between_leads_to_signing_in(self) -> None:
        """The form of a browser that was signed out gives no token."""
        await self.sign_in("alice", self.browser)
        page = await self.browser.follow(await self.browser.get(address()))
        await self.alice.post("/logout/all", {})

        page = await self.browser.submit(page)

        self.assertTrue(page.path.startswith("/_matrix/account/sign_in?"), page.path)


class TrustedClientTests(PagesTestCase):
    settings: ClassVar[dict[str, Any]] = PagesTestCase.settings | {
        "single_sign_on": {"trusted_clients": ["https://client.example/"]}
    }

    async def test_a_trusted_client_needs_no_click(self) -> None:
        """The organisation's own client."""
        await self.register("alice")
        await self.sign_in("alice", self.browser)

        page = await self.browser.follow(await self.browser.get(address()))
        other = await self.browser.follow(
            await self.browser.get(address("https://client.example.evil/"))
        )

        self.assertIn("loginToken", page.text)
        self.assertNotIn("loginToken", other.text)


class WithoutPasswordsTests(PagesTestCase):
    settings: ClassVar[dict[str, Any]] = PagesTestCase.settings | {"passwords": {"enabled": False}}

    async def test_nobody_is_promised_a_login_token(self) -> None:
        """No user could confirm that they want it."""
        flows = {flow["type"]: flow for flow in (await self.anybody.get("/login"))["flows"]}

        self.assertIs(flows["m.login.token"]["get_login_token"], False)


class WithoutPagesTests(PagesTestCase):
    settings: ClassVar[dict[str, Any]] = {}

    async def test_there_is_no_such_flow(self) -> None:
        """Nor the path."""
        flows = [flow["type"] for flow in (await self.anybody.get("/login"))["flows"]]

        self.assertNotIn("m.login.sso", flows)
        self.assertEqual((await self.browser.get(address())).status, 404)
