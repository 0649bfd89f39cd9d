"""Pages for people and machines that are not Matrix clients."""

from twisted.internet.defer import succeed

from homeserver.web.pages import Health, MetricsPage, WelcomePage
from tests.web.wire import ServerTestCase


class PageTests(ServerTestCase):
    async def test_welcome_page_says_what_to_enter(self) -> None:
        """Whoever opens the server's address in a browser learns what to do with it."""
        self.serve(*WelcomePage("example.org", "https://matrix.example.org").routes())

        response = await self.ask("GET", "/")

        self.assertEqual(response.headers["content-type"], "text/html; charset=utf-8")
        self.assertIn("default-src 'none'", response.headers["content-security-policy"])
        self.assertIn(b"https://matrix.example.org", response.body)
        self.assertIn(b"@you:example.org", response.body)

    async def test_welcome_page_needs_no_public_address(self) -> None:
        """A server that was just tried out has none."""
        self.serve(*WelcomePage("<i>localhost</i>", None).routes())

        body = (await self.ask("GET", "/")).body

        self.assertIn(b"&lt;i&gt;localhost", body)
        self.assertIn(b"the address at which you see this page", body)

    async def test_health_names_what_is_well_and_what_is_not(self) -> None:
        """A load balancer looks at the status, a person at the checks."""

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
