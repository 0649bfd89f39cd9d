"""OpenID tokens, and the shared secret of administrators' tools."""

import hmac
from hashlib import sha1
from typing import Any

from homeserver.accounts.credentials.shared_secret import (
    SharedSecret,
    SharedSecretRequest,
    UnknownNonce,
)
from homeserver.accounts.sessions.expired_rows import ExpiredRowCleanup
from homeserver.accounts.sessions.openid_tokens import LIFETIME_SECONDS, OpenIdTokens
from homeserver.protocol.errors import Forbidden
from tests.accounts.support import ALICE, AccountsTestCase


class OpenIdTests(AccountsTestCase):
    async def test_an_openid_token_tells_who_somebody_is_and_nothing_else(self) -> None:
        """A widget learns the user's name and cannot read messages."""
        await self.user()
        openid = OpenIdTokens(self.db, self.clock)

        token = await openid.issue(ALICE)

        self.assertEqual(await openid.get_user(token), ALICE)
        await self.refused(self.authenticate(token), "M_UNKNOWN_TOKEN")

    async def test_an_openid_token_expires(self) -> None:
        """Whom a widget once knew is not known to it for ever."""
        await self.user()
        openid = OpenIdTokens(self.db, self.clock)
        token = await openid.issue(ALICE)

        self.clock.advance(LIFETIME_SECONDS)
        await ExpiredRowCleanup(self.db, self.clock).clean_up()

        await self.refused(openid.get_user(token), "M_UNKNOWN_TOKEN", 401)


class SharedSecretTests(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.secret = SharedSecret("hush, hush", self.clock)

    def request(self, secret: str = "hush, hush", **changed: Any) -> SharedSecretRequest:
        """What tools send, signed before it is `changed`."""
        nonce = self.secret.new_nonce()
        text = f"{nonce}\0alice\0secret horse\0notadmin"
        mac = hmac.new(secret.encode(), text.encode(), sha1).hexdigest()
        members = {"nonce": nonce, "username": "alice", "password": "secret horse", "mac": mac}
        return SharedSecretRequest(**(members | changed))

    def test_who_knows_the_secret_may_register_anybody(self) -> None:
        """Tools make accounts on servers that are closed to the public."""
        self.secret.check(self.request())

    def test_what_is_signed_cannot_be_changed(self) -> None:
        """A proof for one account does not make an administrator."""
        for changed in ({"admin": True}, {"username": "eve"}, {"mac": "é"}, {"user_type": "bot"}):
            with self.assertRaises(Forbidden):
                self.secret.check(self.request(**changed))
        with self.assertRaises(Forbidden):
            self.secret.check(self.request(secret="guess"))

    def test_a_nonce_is_ours_and_fresh(self) -> None:
        """A recorded request is worth nothing later."""
        request = self.request()
        self.clock.advance(61)

        for unknown in (request, self.request(nonce="made up"), self.request(nonce="")):
            with self.assertRaises(UnknownNonce):
                self.secret.check(unknown)
