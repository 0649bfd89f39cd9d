"""Authentication of requests of other servers, by their signature only."""

from typing import Any
from urllib.parse import quote

from homeserver.protocol.signing.signatures import SigningKey, sign_json
from homeserver.protocol.signing.x_matrix import authorize, request_object
from tests.support.fake_server.scripted_peer import KEYS, ScriptedPeer, plain
from tests.support.organisations import FederationTestCase

ROOMS = "/_matrix/federation/v1/publicRooms"


class AuthenticationTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.here = await self.organisation(federation={"deny": ["bad.example"]})
        self.peer = ScriptedPeer(self.authority)
        self.addCleanup(self.peer.stop)

    async def test_signed_requests_are_answered(self) -> None:
        """With a body and without, and with a query that is escaped."""
        self.assertEqual(await self.status("GET", ROOMS), 200)
        self.assertEqual(await self.status("GET", f"{ROOMS}?since={quote('ü &')}"), 400)
        self.assertEqual(await self.status("POST", ROOMS, {"limit": 5}), 200)
        self.assertEqual(len(self.peer.requests_to(KEYS)), 1)

    async def test_anything_else_is_unauthorized(self) -> None:
        """Each of these differs from a good request in one way."""
        good = self.header("POST", ROOMS, b'{"limit":5}')
        self.assertEqual(await self.status("POST", ROOMS, {"limit": 5}, Authorization=good), 200)
        bad = {
            "no scheme": "",
            "another scheme": "Bearer token",
            "malformed": "X-Matrix origin",
            "another method": self.header("GET", ROOMS, b'{"limit":5}'),
            "another path": self.header("POST", ROOMS + "?", b'{"limit":5}'),
            "another body": self.header("POST", ROOMS, b'{"limit":6}'),
            "no body": self.header("POST", ROOMS, None),
            "another key": self.header(
                "POST", ROOMS, b'{"limit":5}', key=SigningKey.from_seed("peer", b"f" * 32)
            ),
            "an unknown key": self.header(
                "POST", ROOMS, b'{"limit":5}', key=SigningKey.from_seed("other", b"f" * 32)
            ),
            "another destination": self.header(
                "POST", ROOMS, b'{"limit":5}', destination="remote.example"
            ),
            "another server": self.header("POST", ROOMS, b'{"limit":5}', origin="127.0.0.1:1"),
            "this server": self.header("POST", ROOMS, b'{"limit":5}', origin=self.here.name),
        }
        for what, header in bad.items():
            status, answer = await self.ask("POST", ROOMS, {"limit": 5}, Authorization=header)
            self.assertEqual((status, answer["errcode"]), (401, "M_UNAUTHORIZED"), what)

    async def test_a_request_without_a_header_is_unauthorized(self) -> None:
        """So is one with an access token."""
        alice = await self.here.register("alice")

        for somebody in (self.here.anybody, alice):
            await self.assert_refused("M_UNAUTHORIZED", somebody.request("GET", ROOMS), 401)

    async def test_old_servers_need_not_name_the_destination(self) -> None:
        """Their signature does not cover the destination either."""
        signed = sign_json(
            request_object("GET", ROOMS, self.peer.name, None), self.peer.name, self.peer.key
        )
        signature = signed["signatures"][self.peer.name][self.peer.key.key_id]
        header = f'X-Matrix origin={self.peer.name},key={self.peer.key.key_id},sig="{signature}"'

        self.assertEqual(await self.status("GET", ROOMS, Authorization=header), 200)

    async def test_denied_servers_are_refused(self) -> None:
        """No request is sent to a denied server for the check."""
        header = self.header("GET", ROOMS, None, origin="bad.example")
        status, answer = await self.ask("GET", ROOMS, Authorization=header)

        self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"))

    async def test_an_origin_that_is_no_server_name_is_refused(self) -> None:
        """Nothing is looked up for it."""
        header = self.header("GET", ROOMS, None, origin="localhost:http")
        status, answer = await self.ask("GET", ROOMS, Authorization=header)

        self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_a_body_that_is_not_json_cannot_have_been_signed(self) -> None:
        """The response is a malformed-body error, not a signature error."""
        for body in (b"{", b"\xff", b"[" * 100_000):
            response = await self.http.request(
                "POST",
                self.here.url + ROOMS,
                data=body,
                headers={"Authorization": self.header("POST", ROOMS, b"{}")},
            )
            self.assertEqual(response.code, 400)
            await response.content()

    async def test_a_server_that_sends_is_tried_again(self) -> None:
        """A server that was unavailable gets its messages when it is back, not an hour later."""
        self.peer.answers["/_matrix/federation/v1/query/profile"] = plain(502, b"")
        alice = await self.here.register("alice")
        await self.assert_refused("M_UNKNOWN", alice.get(f"/profile/@user:{self.peer.name}"), 502)
        destinations = self.here.server.parts.federation.destinations
        failing = destinations.health_of(self.peer.name)

        self.assertEqual(await self.status("GET", ROOMS), 200)

        self.assertEqual(failing.failures, 1)
        self.assertLess(destinations.health_of(self.peer.name).retry_at, failing.retry_at)

    async def test_pauses_outlive_a_restart(self) -> None:
        """After a start, unavailable servers are not all tried at once."""
        self.peer.answers["/_matrix/federation/v1/query/profile"] = plain(502, b"")
        alice = await self.here.register("alice")
        await self.assert_refused("M_UNKNOWN", alice.get(f"/profile/@user:{self.peer.name}"), 502)

        await self.here.stop()
        await self.here.start()

        destinations = self.here.server.parts.federation.destinations
        self.assertEqual(destinations.health_of(self.peer.name).failures, 1)

    def header(self, method: str, uri: str, body: bytes | None, **changes: Any) -> str:
        """An `Authorization` header of the peer, or one that differs from it."""
        who = {
            "origin": self.peer.name,
            "destination": self.here.name,
            "key": self.peer.key,
            **changes,
        }
        return str(authorize(method, uri, content=body, **who))

    async def ask(self, method: str, uri: str, content: Any = None, **headers: str) -> Any:
        """Status and body of the response to a request of the peer."""
        return await self.peer.request(
            self.http, self.here.url, self.here.name, method, uri, content, **headers
        )

    async def status(self, method: str, uri: str, content: Any = None, **headers: str) -> int:
        """Only the status."""
        status, _ = await self.ask(method, uri, content, **headers)
        return int(status)
