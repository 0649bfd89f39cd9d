"""The addresses of an account, which users change on its pages."""

from typing import Any, ClassVar

import psycopg

from tests.api.account_pages.support import PagesTestCase
from tests.api.accounts.test_third_party_ids import BOB, MailTestCase

ADDRESSES = "/_matrix/account?action=io.homeserver.addresses"
PROFILE = "/_matrix/account?action=org.matrix.profile"


class AddressesTests(PagesTestCase, MailTestCase):
    settings: ClassVar[dict[str, Any]] = {"oauth": {"enabled": True}}

    async def setUp(self) -> None:
        await super().setUp()
        self.bob = await self.register("bob")
        await self.sign_in("bob", self.browser)

    async def test_user_adds_an_address_after_the_link_in_a_mail(self) -> None:
        """The address is the user's, and is theirs after that only."""
        self.assertIn("io.homeserver.addresses", (await self.browser.get(PROFILE)).text)
        page = await self.browser.get(ADDRESSES)
        page = await self.browser.submit(page, email="no address")
        self.assertEqual(page.status, 400)
        sent = await self.browser.submit(page, email=BOB)
        early = await self.browser.submit(sent)
        self.assertEqual(early.status, 403)
        self.assertIn("has not been validated", early.text)
        self.assertEqual(await self.addresses(self.bob), [])
        await self.follow(self.mails.mails[-1].link)

        done = await self.browser.submit(early)

        self.assertEqual(done.heading, "The address was added")
        self.assertEqual(await self.addresses(self.bob), [BOB])
        self.assertIn(BOB, (await self.browser.get(PROFILE)).text)

    async def test_user_removes_an_address(self) -> None:
        """An address that a user has lost resets no password."""
        await self.add(self.bob)

        done = await self.browser.submit(await self.browser.get(ADDRESSES))

        self.assertEqual(done.heading, "The address was removed")
        self.assertEqual(await self.addresses(self.bob), [])

    async def test_a_stranger_at_an_open_computer_adds_no_address(self) -> None:
        """With it they could choose a new password later."""
        form = (await self.browser.get(ADDRESSES)).forms()[0][1]
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                "UPDATE browser_sessions SET authenticated_ms = authenticated_ms - 660000"
            )

        page = await self.browser.post(ADDRESSES, {**form, "email": "eve@example.com"})

        self.assertEqual(page.status, 303)
        self.assertEqual(self.mails.mails, [])

    async def test_addresses_of_others_stay(self) -> None:
        """A user removes only what is theirs, and a form of nothing is refused."""
        alice = await self.register("alice")
        await self.add(alice)
        form = (await self.browser.get(ADDRESSES)).forms()[0][1]

        for fields in ({"medium": "email", "address": BOB}, {"medium": "fax", "address": "1"}, {}):
            page = await self.browser.post(ADDRESSES, {"form_token": form["form_token"], **fields})
            self.assertLess(page.status, 500)
        self.assertEqual(await self.addresses(alice), [BOB])


class ClosedAddressesTests(PagesTestCase, MailTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "oauth": {"enabled": True},
        "third_party_ids": {"enable_changes": False},
    }

    async def test_only_administrators_change_addresses_where_the_operator_says_so(self) -> None:
        """A company gives its people their addresses."""
        await self.register("bob")
        await self.sign_in("bob", self.browser)
        self.assertNotIn("io.homeserver.addresses", (await self.browser.get(PROFILE)).text)
        page = await self.browser.get(ADDRESSES)
        self.assertEqual(page.forms(), [])

        token = (await self.browser.get(PROFILE)).forms()[0][1]["form_token"]
        for fields in ({"email": BOB}, {"medium": "email", "address": BOB}, {"sid": "x"}):
            page = await self.browser.post(ADDRESSES, {"form_token": token, **fields})
            self.assertEqual(page.status, 403)
        self.assertEqual(self.mails.mails, [])
