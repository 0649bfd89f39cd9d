"""Pings: an application service tests the way from this server to itself."""

from typing import Any

from appservices.queries import ping
from tests.appservices.fake_bridge import Answer, after, never
from tests.appservices.queries.support import BridgedTestCase
from tests.appservices.support import HS_TOKEN, registration
from tests.support.actors import Client

PATH = "/_matrix/client/v1/appservice/{}/ping"
ASKED = "/_matrix/app/v1/ping"


class PingTests(BridgedTestCase):
    def other_bridges(self) -> tuple[dict[str, Any], ...]:
        return (registration("xmpp"),)

    async def ping(self, client: Client | None = None, of: str = "irc", **body: Any) -> Any:
        return await (client or self.bot()).request("POST", PATH.format(of), body)

    async def test_a_ping_comes_back(self) -> None:
        """A bridge knows at its start whether events can reach it."""
        self.bridge.answers[ASKED] = after(0.05)

        answer = await self.ping(transaction_id="ping 1")

        self.assertGreaterEqual(answer["duration_ms"], 40)
        (asked,) = self.bridge.requests
        self.assertEqual((asked.method, asked.path), ("POST", ASKED))
        self.assertEqual(asked.body, {"transaction_id": "ping 1"})
        self.assertEqual(asked.token, f"{HS_TOKEN} irc")

    async def test_a_bad_status_is_passed_on(self) -> None:
        """A wrong token is found by its answer, of which no more than a part is shown."""
        self.bridge.answers[ASKED] = lambda _: Answer(401, b'{"errcode": "M_UNKNOWN_TOKEN"}')

        refused = await self.assert_refused("M_BAD_STATUS", self.ping(), 502)

        self.assertEqual(refused.body["status"], 401)
        self.assertEqual(refused.body["body"], '{"errcode": "M_UNKNOWN_TOKEN"}')
        self.bridge.answers[ASKED] = lambda _: Answer(500, b"\xff" * 60_000)
        refused = await self.assert_refused("M_BAD_STATUS", self.ping(), 502)
        self.assertEqual(refused.body["body"], "\ufffd" * ping.MAX_SHOWN)

    async def test_a_bridge_that_is_away_is_reported(self) -> None:
        """Each failure has its own error code."""
        self.patch(ping, "TIMEOUT_SECONDS", 0.3)
        self.bridge.answers[ASKED] = never
        await self.assert_refused("M_CONNECTION_TIMEOUT", self.ping(), 504)
        self.bridge.answers[ASKED] = lambda _: Answer(200, b"x" * 1_000_000)
        await self.assert_refused("M_CONNECTION_FAILED", self.ping(), 502)
        await self.bridge.stop()
        await self.assert_refused("M_CONNECTION_FAILED", self.ping(), 502)

    async def test_others_may_not_ping(self) -> None:
        """Nobody has this server send requests to a bridge that is not theirs."""
        alice = await self.register("alice")
        for client, of in ((alice, "irc"), (self.bot("xmpp"), "irc"), (self.bot(), "none")):
            await self.assert_refused("M_FORBIDDEN", self.ping(client, of), 403)

        self.assertEqual(self.bridge.requests, [])

    async def test_a_bridge_without_a_url_is_told_so(self) -> None:
        """A forgotten address is named."""
        await self.assert_refused("M_URL_NOT_SET", self.ping(self.bot("xmpp"), "xmpp"), 400)
