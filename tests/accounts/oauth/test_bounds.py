"""What strangers can have stored by the OAuth 2.0 API is bounded, and expires."""

from homeserver.accounts.oauth.clients import (
    CLEAN_UP_SECONDS,
    CROWDED_LIFE_MS,
    OAuthClients,
    RegisteredClient,
)
from homeserver.accounts.oauth.device_codes import CODE_LIFE_MS, DeviceGrants
from homeserver.accounts.oauth.sessions import OAuthSessions
from homeserver.accounts.sessions.expired_rows import ExpiredRowCleanup
from homeserver.accounts.sessions.token_issuer import TokenIssuer
from homeserver.protocol.errors import LimitExceeded
from homeserver.protocol.oauth.client_metadata import DEVICE_CODE
from homeserver.protocol.oauth.errors import OAuthError
from homeserver.protocol.oauth.scopes import API, DEVICE, parse_scope
from homeserver.storage.oauth.cleanup import UNUSED_CLIENT_MS
from tests.accounts.support import AccountsTestCase

SCOPE = parse_scope(f"{API[0]} {DEVICE[0]}TELEVISION")
HOUR_MS = 60 * 60 * 1000


class BoundsTests(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.clients = OAuthClients(self.db, self.clock, max_clients=2)
        issuer = TokenIssuer(self.clock, 300, None)
        sessions = OAuthSessions(
            self.db, self.clock, issuer, self.devices, self.tokens, self.sessions
        )
        self.grants = DeviceGrants(self.db, self.clock, sessions, max_waiting=2)

    async def register_client(self, name: str) -> RegisteredClient:
        return await self.clients.register(
            {"client_uri": "https://example.com", "client_name": name, "grant_types": [DEVICE_CODE]}
        )

    async def let_pass(self, after_ms: int) -> None:
        """Let time pass, until the next clean-up."""
        self.clock.advance(after_ms / 1000)
        await ExpiredRowCleanup(self.db, self.clock).clean_up()

    async def test_clients_are_bounded_in_number(self) -> None:
        """A flood of new clients keeps nobody out who uses a known one."""
        for name in ("one", "two"):
            await self.register_client(name)

        with self.assertRaises(LimitExceeded):
            await self.register_client("three")
        again = await self.register_client("one")

        self.assertEqual((await self.clients.get(again.client_id)).metadata.name, "one")

    async def test_clients_that_nobody_uses_give_way(self) -> None:
        """A flood keeps new clients out for half an hour, and not for a day."""
        for name in ("one", "two"):
            await self.register_client(name)
        self.clock.advance(CROWDED_LIFE_MS / 1000)
        with self.assertRaises(LimitExceeded):
            await self.register_client("three")

        self.clock.advance(CLEAN_UP_SECONDS)

        await self.register_client("three")

    async def test_a_client_that_registers_again_stays(self) -> None:
        """Each log-in begins with a registration, and keeps the client for a day."""
        one, two = await self.register_client("one"), await self.register_client("two")
        await self.let_pass(UNUSED_CLIENT_MS - HOUR_MS)
        await self.register_client("one")

        await self.let_pass(2 * HOUR_MS)

        await self.clients.get(one.client_id)
        with self.assertRaises(OAuthError):
            await self.clients.get(two.client_id)

    async def test_waiting_clients_are_bounded_in_number(self) -> None:
        """Those that wait no more give way at once."""
        client = await self.register_client("television")
        for _ in range(2):
            await self.grants.begin(client, SCOPE)
        with self.assertRaises(LimitExceeded):
            await self.grants.begin(client, SCOPE)

        self.clock.advance(CODE_LIFE_MS / 1000)

        codes = await self.grants.begin(client, SCOPE)
        self.assertIsNotNone(await self.grants.find(codes.user_code))

    async def test_expired_codes_are_deleted(self) -> None:
        """Nothing that is of no use is kept."""
        client = await self.register_client("television")
        codes = await self.grants.begin(client, SCOPE)
        await self.let_pass(CODE_LIFE_MS + 1)

        with self.assertRaises(OAuthError) as refused:
            await self.grants.poll(client, codes.device_code)
        self.assertEqual(refused.exception.errcode, "invalid_grant")
