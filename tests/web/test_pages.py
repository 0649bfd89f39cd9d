"""Resources for users and machines other than Matrix clients."""

import msgspec
from twisted.internet.defer import succeed

from homeserver.config.settings import Settings
from homeserver.protocol.errors import LimitExceeded
from homeserver.web.html import Pages
from homeserver.web.pages import Health, MetricsPage, WelcomePage
from homeserver.web.routes import Auth, Route
from tests.web.raw_http import ServerTestCase


class PageTests(ServerTestCase):
    def welcome(self, server_name: str = "example.org", **settings: object) -> None:
        configured = msgspec.convert({"server_name": "example.org", **settings}, Settings)
        self.serve(*WelcomePage(Pages(server_name), configured).routes())

    async def test_welcome_page_says_what_to_enter(self) -> None:
        """A user who opens the server's address in a browser learns what to do with it."""
        self.welcome(public_baseurl="https://matrix.example.org")

        response = await self.ask("GET", "/")

        self.assertEqual(response.headers["content-type"], "text/html; charset=utf-8")
        self.assertIn("default-src 'none'", response.headers["content-security-policy"])
        self.assertIn(b"https://matrix.example.org", response.body)
        self.assertIn(b"@you:example.org", response.body)

    async def test_welcome_page_needs_no_public_address(self) -> None:
        """A new server has none."""
        self.welcome("<i>localhost</i>")

        body = (await self.ask("GET", "/")).body

        self.assertIn(b"&lt;i&gt;localhost", body)
        self.assertNotIn(b"<i>localhost", body)
        self.assertIn(b"the address at which you see this page", body)

    async def test_welcome_page_says_how_to_get_an_account(self) -> None:
        """It depends on who may register, and on the contacts."""
        pages = {}
        for name, registration in (
            ("closed", {}),
            ("open", {"enabled": True}),
            ("token", {"enabled": True, "token_required": True}),
        ):
            support = {"contacts": [{"role": "m.role.admin", "email_address": "a@example.org"}]}
            self.welcome(registration=registration, support=support)
            pages[name] = (await self.ask("GET", "/")).body.decode()

        self.assertIn("ask them for one", pages["closed"])
        self.assertIn("Create account", pages["open"])
        self.assertNotIn("token", pages["open"])
        self.assertIn("registration token", pages["token"])
        self.assertIn('href="mailto:a@example.org"', pages["closed"])

    async def test_welcome_page_leads_to_the_pages_of_accounts(self) -> None:
        """A user who lost the address of the pages finds them where they are enabled."""
        shown = {}
        for is_enabled in (True, False):
            self.welcome(
                registration={"enabled": True},
                oauth={"enabled": is_enabled},
                public_baseurl="https://matrix.example.org",
            )
            shown[is_enabled] = (await self.ask("GET", "/")).body.decode()

        for address in ("_matrix/account", "_matrix/account/sign_up"):
            self.assertIn(f'href="{address}"', shown[True])
            self.assertNotIn(f'href="{address}"', shown[False])

    async def test_errors_are_pages_in_a_browser(self) -> None:
        """Browsers get a page, also for an unknown address; programs get JSON."""

        def fail() -> None:
            raise LimitExceeded(2_000, "Wait <a while>")

        page = Route("GET", "/page", fail, Auth.NONE, page=True)
        api = Route("GET", "/_matrix/api", fail, Auth.NONE)
        self.serve(page, api)
        browser = "text/html,application/xhtml+xml,*/*;q=0.8"
        kinds = {}
        for path in ("/page", "/_matrix/api", "/unknown", "/_matrix/unknown"):
            for accept in (browser, "*/*"):
                answer = await self.ask("GET", path, headers=[("Accept", accept)])
                kinds[path, accept == browser] = answer.headers["content-type"].partition(";")[0]
                if kinds[path, accept == browser] == "text/html":
                    self.assertNotIn(b"<a while>", answer.body)
                    self.assertIn("default-src 'none'", answer.headers["content-security-policy"])
                self.assertEqual(answer.status, 429 if path in ("/page", "/_matrix/api") else 404)

        pages = {where for where, kind in kinds.items() if kind == "text/html"}
        self.assertEqual(pages, {("/page", True), ("/unknown", True)})

    async def test_health_has_the_result_of_each_check(self) -> None:
        """A load balancer reads the status, an operator the checks."""

        def broken() -> bool:
            raise ConnectionError

        async def later() -> bool:
            return await succeed(True)

        self.serve(*Health({"database": later, "log": lambda: True}).routes())
        well = await self.ask("GET", "/health")
        self.serve(*Health({"database": broken, "log": lambda: True}).routes())
        ill = await self.ask("GET", "/health")

        self.assertEqual((well.status, well.json["status"]), (200, "ok"))
        self.assertEqual((ill.status, ill.json["status"]), (503, "failing"))
        self.assertEqual(ill.json["checks"], {"database": "failing", "log": "ok"})
        self.flushLoggedErrors(ConnectionError)

    async def test_metrics_are_given_out_as_they_are(self) -> None:
        """Prometheus reads text."""
        self.serve(*MetricsPage(lambda: b"up 1\n", "text/plain").routes())

        response = await self.ask("GET", "/metrics")

        self.assertEqual(
            (response.headers["content-type"], response.body), ("text/plain", b"up 1\n")
        )
