"""The pages for users who have forgotten their password."""

from typing import Any, ClassVar

from homeserver.accounts.browser_sessions.browser_sessions import sign_in_location
from tests.api.account_pages.support import Page, PagesTestCase
from tests.api.accounts.test_third_party_ids import BOB, MailTestCase

RESET = "/_matrix/account/reset_password"
TARGET = "/_matrix/oauth2/authorize?client_id=x"
NEW = {"new_password": "a new horse", "repeated_password": "a new horse"}


class ResetPasswordTests(PagesTestCase, MailTestCase):
    settings: ClassVar[dict[str, Any]] = {"oauth": {"enabled": True}}

    async def setUp(self) -> None:
        await super().setUp()
        self.bob = await self.register("bob")
        await self.add(self.bob)

    async def ask(self, email: str = BOB) -> Page:
        """The page after a mail was sent."""
        return await self.browser.submit(await self.browser.get(RESET), email=email)

    async def test_user_chooses_a_new_password_after_the_link_in_the_mail(self) -> None:
        """A user who has forgotten the password needs no administrator, and continues after it."""
        page = await self.browser.get(sign_in_location(TARGET))
        self.assertIn(RESET, page.text)
        address = sign_in_location(TARGET).replace("sign_in", "reset_password")
        page = await self.browser.submit(await self.browser.get(address), email=f" {BOB} ")
        await self.follow(self.mails.mails[-1].link, "POST")

        done = await self.browser.submit(page, **NEW)

        self.assertEqual((done.status, done.heading), (200, "Your password was changed"))
        self.assertIn(sign_in_location(TARGET), done.text)
        signed_in = await self.sign_in("bob", self.browser, password="a new horse")
        self.assertEqual(signed_in.status, 200)
        await self.bob.get("/account/whoami")
        again = await self.browser.submit(page, **NEW)
        self.assertEqual(again.status, 403, "a mail is for one new password")

    async def test_user_signs_out_of_all_devices_with_it(self) -> None:
        """A stranger who knew the old password has nothing any more."""
        other = self.new_browser()
        await self.sign_in("bob", other)
        page = await self.ask()
        await self.follow(self.mails.mails[-1].link, "POST")

        await self.browser.submit(page, **NEW, logout_devices="yes")

        await self.assert_refused("M_UNKNOWN_TOKEN", self.bob.get("/account/whoami"))
        self.assertEqual((await other.get("/_matrix/account")).status, 303)

    async def test_nothing_changes_before_the_link_was_confirmed(self) -> None:
        """To know an address is not enough; the user may try again after the mail has come."""
        page = await self.ask()
        for link in (None, self.mails.mails[-1].link):
            if link is not None:
                await self.follow(link)
            page = await self.browser.submit(page, **NEW)
            self.assertEqual(page.status, 403)
            self.assertIn("has not been validated", page.text)
        await self.sign_in("bob", self.new_browser())

        await self.follow(self.mails.mails[-1].link, "POST")
        page = await self.browser.submit(page, **NEW)
        self.assertEqual(page.heading, "Your password was changed")

    async def test_page_does_not_tell_who_has_an_account(self) -> None:
        """A stranger learns nothing; the owner of the address learns of the attempt."""
        known, unknown = await self.ask(), await self.ask("stranger@example.com")

        self.assertEqual((known.status, known.heading), (unknown.status, unknown.heading))
        self.assertEqual(len(self.mails.to("stranger@example.com")), 1)

    async def test_the_secret_of_another_request_is_needed(self) -> None:
        """A reader of the mail, or of one half of the form, cannot choose the password."""
        page = await self.ask()
        await self.follow(self.mails.mails[-1].link, "POST")
        for changed in ({"client_secret": "guess"}, {"sid": "guess"}, {"client_secret": ""}):
            refused = await self.browser.submit(page, **NEW, **changed)
            self.assertIn(refused.status, (401, 403), changed)
        weak = {"new_password": "short", "repeated_password": "short"}
        self.assertEqual((await self.browser.submit(page, **weak)).status, 400)
        different = await self.browser.submit(page, **{**NEW, "repeated_password": "other"})
        self.assertEqual(different.status, 400)
        _, fields = page.forms()[0]
        foreign = await self.browser.post(f"{RESET}/new", {**fields, **NEW, "form_token": "x"})
        self.assertEqual(foreign.status, 403)
        await self.sign_in("bob", self.new_browser())


class WithoutMailTests(PagesTestCase):
    async def test_page_is_not_offered_without_mail(self) -> None:
        """A link that cannot work is not shown."""
        page = await self.browser.get("/_matrix/account/sign_in")

        self.assertNotIn("reset_password", page.text)
        self.assertEqual((await self.browser.get(RESET)).status, 404)
