"""Identity servers, over real TLS: the requests, and the accepted responses."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from homeserver.config.settings import OutboundHttpSettings
from homeserver.outbound.http_client import OutboundClient
from homeserver.outbound.identity_servers import IdentityServers
from homeserver.protocol.errors import MatrixError
from homeserver.protocol.signing.signatures import SigningKey, verify_signed_json
from homeserver.protocol.third_party_ids.address_validation import ThreepidCredentials
from homeserver.storage.accounts.identity_bindings import IdentityBinding
from tests.storage.test_tls import make_certificate

ALICE = "@alice:example.org"
KEY = SigningKey.from_seed("1", b"0" * 32)


class Answering(Resource):
    """An identity server that responds as the test wants."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.status = 200
        self.answer: Any = {}
        self.path = b""
        self.authorization = ""
        self.body: Any = None

    def render_POST(self, request: Request) -> bytes:
        assert request.content is not None
        self.path = request.path
        self.authorization = request.getHeader("Authorization") or ""
        self.body = json.loads(request.content.read())
        request.setResponseCode(self.status)
        return self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()


class IdentityServerTests(TestCase):
    def setUp(self) -> None:
        self.remote = Answering()
        with TemporaryDirectory() as directory:
            certificate, key = make_certificate(Path(directory))
            context = DefaultOpenSSLContextFactory(str(key), str(certificate))
        listen: Any = reactor
        port = listen.listenSSL(0, Site(self.remote), context, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.name = f"127.0.0.1:{port.getHost().port}"
        settings = OutboundHttpSettings(verify_certificates=False, allow_private_addresses=True)
        outbound = OutboundClient(reactor, settings)
        self.addCleanup(lambda: Deferred.fromCoroutine(outbound.stop()))
        self.servers = IdentityServers(outbound, "example.org", KEY)

    async def bind(self, token: str = "swordfish") -> tuple[str, str]:
        """Alice publishes an address."""
        return await self.servers.bind(
            self.name, token, ThreepidCredentials("123", "secret"), ALICE
        )

    async def unbind(self) -> bool:
        """Alice unpublishes it."""
        binding = IdentityBinding(ALICE, "email", "alice@example.com", self.name)
        return await self.servers.unbind(binding)

    async def refused(self, attempt: Any) -> tuple[int, str, str]:
        """Status, error code and message of a refusal."""
        error = await self.assertFailure(Deferred.fromCoroutine(attempt), MatrixError)
        return error.status, error.body()["errcode"], str(error)

    async def test_an_address_is_published_in_the_name_of_the_user(self) -> None:
        """With the token that the client got there."""
        self.remote.answer = {"medium": "email", "address": "alice@example.com", "ts": 1}

        self.assertEqual(await self.bind(), ("email", "alice@example.com"))

        self.assertEqual(self.remote.path, b"/_matrix/identity/v2/3pid/bind")
        self.assertEqual(self.remote.authorization, "Bearer swordfish")
        self.assertEqual(self.remote.body, {"sid": "123", "client_secret": "secret", "mxid": ALICE})

    async def test_an_address_is_unpublished_in_the_name_of_the_server(self) -> None:
        """The identity server sees by the signature that this is Alice's server."""
        self.assertTrue(await self.unbind())

        scheme, _, values = self.remote.authorization.partition(" ")
        named = dict(pair.split("=", 1) for pair in values.replace('"', "").split(","))
        signed = {
            "method": "POST",
            "uri": "/_matrix/identity/v2/3pid/unbind",
            "origin": named["origin"],
            "destination": named["destination"],
            "content": self.remote.body,
            "signatures": {"example.org": {named["key"]: named["sig"]}},
        }
        self.assertEqual((scheme, self.remote.path.decode()), ("X-Matrix", signed["uri"]))
        verify_signed_json(signed, "example.org", KEY.key_id, KEY.verify_key)
        self.assertEqual(named["destination"], self.name)

    async def test_missing_support_differs_from_a_refusal(
        self,
    ) -> None:
        """The first responds with an error that is not one of Matrix."""
        for status in (400, 404, 501):
            self.remote.status, self.remote.answer = status, b"<h1>What?</h1>"
            self.assertFalse(await self.unbind())

        self.remote.answer = {"errcode": "M_TERMS_NOT_SIGNED", "error": "Please read"}
        self.remote.status = 403
        self.assertEqual(
            await self.refused(self.unbind()), (403, "M_TERMS_NOT_SIGNED", "Please read")
        )

    async def test_errors_are_passed_on(self) -> None:
        """Only the identity server knows the reason."""
        self.remote.status = 404
        self.remote.answer = {"errcode": "M_NO_VALID_SESSION", "error": "No such session"}

        refusal = await self.refused(self.bind())

        self.assertEqual(refusal, (404, "M_NO_VALID_SESSION", "No such session"))

    async def test_no_response_from_there_ends_the_local_session(self) -> None:
        """Clients that read "unknown token" would log out."""
        self.remote.status = 401
        for errcode in ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "nonsense"):
            self.remote.answer = {"errcode": errcode, "error": "Who are you?"}
            refusal = await self.refused(self.bind())
            self.assertEqual(refusal, (403, "M_UNAUTHORIZED", "Who are you?"))

    async def test_invalid_responses(self) -> None:
        """No response from there causes a failure here."""
        for status, answer in ((200, b"\xff"), (200, {"medium": 1}), (200, []), (500, b"")):
            self.remote.status, self.remote.answer = status, answer
            self.assertEqual((await self.refused(self.bind()))[:2], (400, "M_UNKNOWN"))

    async def test_an_invalid_token_is_not_sent(self) -> None:
        """It could smuggle in a header."""
        for token in ("a\r\nb: c", "ä"):
            self.assertEqual((await self.refused(self.bind(token)))[:2], (403, "M_UNAUTHORIZED"))
        self.assertEqual(self.remote.path, b"")

    async def test_an_unavailable_server(self) -> None:
        """The client gets an error, without the address that was tried."""
        self.name = "127.0.0.1:1"

        status, errcode, text = await self.refused(self.bind())

        self.assertEqual((status, errcode), (400, "M_UNKNOWN"))
        self.assertNotIn("127", text)
