"""Addresses that users publish at identity servers, and what becomes of them."""

from typing import Any

from homeserver.accounts.third_party_ids.identity_bindings import MAX_BINDINGS, IdentityBindings
from homeserver.protocol.errors import Unavailable
from homeserver.protocol.third_party_ids.address_validation import ThreepidCredentials
from homeserver.storage.accounts.identity_bindings import (
    IdentityBinding,
    identity_bindings_of,
    insert_identity_binding,
)
from homeserver.storage.accounts.third_party_ids import ThirdPartyId, insert_third_party_id
from tests.accounts.support import ALICE, AccountsTestCase

ALICES = "alice@example.com"
HERE, THERE = "id.example.org", "id.elsewhere.example:8090"


class BindingTestCase(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.user()

    async def bind(self, id_server: str = HERE, sid: str = "alice") -> None:
        """Alice publishes the address of a session, which is called after it."""
        await self.bindings.bind(ALICE, id_server, "token", ThreepidCredentials(sid, "secret"))

    async def unbind(self, id_server: str | None = None, address: str = ALICES) -> bool:
        """Alice takes an address back."""
        return await self.bindings.unbind(ALICE, "email", address, id_server)

    async def bound(self) -> list[str]:
        """The stored bindings of Alice."""
        return [one.id_server for one in await self.db.run(identity_bindings_of, ALICE)]


class BindingTests(BindingTestCase):
    async def test_what_was_published_is_taken_back_where_it_was_published(self) -> None:
        """Clients need not remember it."""
        await self.bind(HERE)
        await self.bind(THERE)

        self.assertTrue(await self.unbind())

        self.assertEqual((self.identity_servers.bound, await self.bound()), ([], []))

    async def test_an_identity_server_can_be_named(self) -> None:
        """And the others go on publishing."""
        await self.bind(HERE)
        await self.bind(THERE)

        self.assertTrue(await self.unbind(THERE))

        self.assertEqual(await self.bound(), [HERE])

    async def test_an_unknown_binding_cannot_be_unbound(self) -> None:
        """The client learns that no identity server is known."""
        self.assertFalse(await self.unbind())

    async def test_an_identity_server_may_not_support_it(self) -> None:
        """Then it still publishes the address."""
        await self.bind()
        self.identity_servers.supports_unbinding = False

        self.assertFalse(await self.unbind())

        self.assertEqual(await self.bound(), [HERE])

    async def test_errors_of_the_identity_server_reach_the_client(self) -> None:
        """It alone knows what is wrong."""
        await self.bind()
        self.identity_servers.error = Unavailable("on fire")

        await self.refused(self.bind(THERE), "M_UNKNOWN", 503)
        await self.refused(self.unbind(), "M_UNKNOWN", 503)
        quietly = self.bindings.unbind_quietly(ALICE, "email", ALICES, None)
        self.assertFalse(await quietly)

        self.assertEqual(await self.bound(), [HERE])

    async def test_identity_servers_that_are_none(self) -> None:
        """A host name, and one that the administrator trusts."""
        for wrong in ("", "https://id.example.org", "id.example.org/path", "a b", "a\0"):
            await self.refused(self.bind(wrong), "M_INVALID_PARAM", 400)
            await self.refused(self.unbind(wrong), "M_INVALID_PARAM", 400)
        self.bindings = IdentityBindings(self.db, self.identity_servers, [HERE])

        await self.refused(self.bind(THERE), "M_SERVER_NOT_TRUSTED", 400)
        await self.refused(self.unbind(THERE), "M_SERVER_NOT_TRUSTED", 400)
        await self.bind(HERE)

    async def test_invalid_credentials_are_not_sent(self) -> None:
        """The request is malformed for any identity server."""
        await self.refused(self.bind(sid="a b"), "M_INVALID_PARAM", 400)

        self.assertEqual(self.identity_servers.bound, [])

    async def test_bindings_of_a_user_are_bounded(self) -> None:
        """Each has to be unbound when the account is deactivated."""
        for number in range(MAX_BINDINGS):
            binding = IdentityBinding(ALICE, "email", f"{number}@example.com", HERE)
            await self.db.run(insert_identity_binding, binding)

        await self.refused(self.bind(), "M_LIMIT_EXCEEDED", 429)


class LeavingTests(BindingTestCase):
    async def leave(self, **how: Any) -> bool:
        """Alice closes her account."""
        return await self.bindings.unbind_all(ALICE, **how)

    async def test_all_bindings_are_unbound_at_deactivation(self) -> None:
        """A look-up does not find a deactivated account."""
        await self.bind(HERE)
        await self.bind(THERE, "other")

        self.assertTrue(await self.leave())

        self.assertEqual((self.identity_servers.bound, await self.bound()), ([], []))

    async def test_nothing_to_unbind_is_a_success(self) -> None:
        """The specification requires it."""
        self.assertTrue(await self.leave())

    async def test_a_failure_does_not_keep_an_account_open(self) -> None:
        """The client learns that a binding may remain."""
        await self.bind()
        self.identity_servers.error = Unavailable("on fire")

        self.assertFalse(await self.leave())

        self.assertEqual(await self.bound(), [])

    async def test_one_identity_server_unbinds_all_addresses(self) -> None:
        """Those that were published there by others, too."""
        new = ThirdPartyId("email", "own@example.com", ALICE, validated_ms=1, added_ms=2)
        await self.db.run(insert_third_party_id, new)
        self.identity_servers.bound = [(THERE, "own@example.com")]

        self.assertTrue(await self.leave(id_server=THERE))

        self.assertEqual(self.identity_servers.bound, [])
